"""Hinted chunk models over Python's integers: what ezkl's circuit says, without ezkl."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tests.unit.chunking.hinted_function_reference import FunctionReference
from tests.unit.chunking.hinted_reference import Whole
from zkml_ray.chunking.extract import CommittedTensor
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.extract import extract_hinted_chunk
from zkml_ray.chunking.hinted.numbers import PACKED_BITS, Arithmetic
from zkml_ray.chunking.hinted.recipe import filled, products_of, solve
from zkml_ray.chunking.normalize import normalise
from zkml_ray.circuits.derive import committed_tensors
from zkml_ray.commitments.challenge import Challenges, value_at, weighted
from zkml_ray.commitments.field import MODULUS, canonical
from zkml_ray.commitments.leaves import draw_salts, pack_leaves, unpack_leaves
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.stages.plan import PlanOptions, hinted_commitment

Objects = npt.NDArray[np.object_]

CHALLENGES = Challenges(
    rho=0x1D5A_0C33 << 200 | 77, sigma=3**150 % MODULUS, tau=5**100 % MODULUS, t=7**88 % MODULUS
)
"""Some that no small equation holds for."""

NUMBERS = Arithmetic(scale=7, logrows=10, range_bits=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class HintedChunk:
    """A model, or some of its nodes, as one hinted chunk."""

    graph: ModelGraph
    nodes: Sequence[str]
    data: bytes
    numbers: Arithmetic
    incoming: Sequence[CommittedTensor]
    outgoing: Sequence[CommittedTensor]
    columns: int
    challenge: bool = False

    def quantised(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Whole]:
        """Inputs in whole numbers."""
        scaled = {name: array * 2.0**self.numbers.scale for name, array in arrays.items()}
        return {name: np.rint(array).astype(np.int64) for name, array in scaled.items()}

    def reference(self, inputs: Mapping[str, Whole]) -> dict[str, Whole]:
        """Outputs as the loops say."""
        names = [tensor.info.name for tensor in self.outgoing]
        return FunctionReference(self.graph, self.numbers).run(inputs, self.nodes, names)

    def advice(self, inputs: Mapping[str, Whole]) -> list[int]:
        """The circuit's input: hints, values, salts, blinders."""
        values = {t.info.name: inputs[t.info.name].ravel() for t in self.incoming}
        model = onnx.ModelProto.FromString(self.data)
        given: list[int] = []
        for flat in values.values():
            given += flat.tolist()
        for tensor in (*self.incoming, *self.outgoing):
            given += self.salts(tensor)
        return filled(model, solve(model, values, "chunk-000"), given)

    def salts(self, tensor: CommittedTensor) -> list[int]:
        """The salts that `advice` puts beside a tensor."""
        return list(draw_salts(tensor.layout, seed=b"test", label=tensor.info.name))

    def outputs(self, leaves: Sequence[Sequence[int]]) -> dict[str, Whole]:
        """Values of the outputs, from all leaves that a circuit gives; the others are checked."""
        found, start = {}, 0
        for tensor in (*self.incoming, *self.outgoing):
            part = leaves[start : start + tensor.layout.leaf_count]
            start += tensor.layout.leaf_count
            values, salts = unpack_leaves(part, tensor.layout)
            assert list(salts) == self.salts(tensor)
            found[tensor.info.name] = np.array(values, dtype=np.int64).reshape(tensor.info.shape)
        assert start == len(leaves)
        return found

    def arguments(self) -> CircuitArguments:
        """Its circuit arguments."""
        spec = self.incoming[0].layout.packing
        return CircuitArguments(
            input_scale=self.numbers.scale,
            param_scale=self.numbers.scale,
            decomp_base=spec.decomp_base,
            decomp_legs=spec.decomp_legs,
            num_inner_cols=self.columns,
            logrows=self.numbers.logrows,
            lookup_range=(0, self.numbers.divisor - 1),
            kind="hinted",
            range_bits=self.numbers.range_bits,
            products="challenge" if self.challenge else "packed",
        )


def hinted_chunk(
    proto: onnx.ModelProto,
    numbers: Arithmetic = NUMBERS,
    *,
    salted: bool = True,
    columns: int = 1,
    challenge: bool = False,
) -> HintedChunk:
    """A model as one hinted chunk.

    Raises:
        NotHintedError: It has no hinted form.
    """
    (chunk,) = hinted_chunks(proto, numbers, salted=salted, columns=columns, challenge=challenge)
    return chunk


def hinted_chunks(
    proto: onnx.ModelProto,
    numbers: Arithmetic = NUMBERS,
    *,
    cuts: Sequence[str] = (),
    salted: bool = True,
    columns: int = 1,
    challenge: bool = False,
) -> list[HintedChunk]:
    """A model as hinted chunks, cut behind the nodes that make some tensors.

    Raises:
        NotHintedError: A chunk has no hinted form.
    """
    graph = ModelGraph(normalise(proto, {}))
    parts: list[list[str]] = [[]]
    for name, node in graph.nodes.items():
        parts[-1].append(name)
        if node.output[0] in cuts:
            parts.append([])
    crossings = graph.crossings(parts)
    options = PlanOptions(scale=numbers.scale, range_bits=numbers.range_bits, salted=salted)
    commitment = hinted_commitment(options)
    packing = PackingSpec.for_decomposition(commitment.decomp_base, commitment.decomp_legs)
    committed = committed_tensors(crossings, packing, commitment)
    chunks = []
    for index, nodes in enumerate(parts):
        incoming = [committed[c.tensor.name] for c in crossings if index in c.consumers]
        outgoing = [committed[c.tensor.name] for c in crossings if c.producer == index]
        chunks.append(
            HintedChunk(
                graph=graph,
                nodes=nodes,
                data=extract_hinted_chunk(
                    graph,
                    nodes,
                    incoming,
                    outgoing,
                    numbers,
                    columns=columns,
                    challenge=challenge,
                ),
                numbers=numbers,
                incoming=incoming,
                outgoing=outgoing,
                columns=columns,
                challenge=challenge,
            )
        )
    return chunks


class OutsideTableError(AssertionError):
    """A lookup's input is not in the table."""


def evaluated(chunk: HintedChunk, vector: Sequence[int], end: int = 0) -> list[list[int]]:
    """The leaves that a chunk's circuit gives for an input; an identity, if it has one, holds.

    Raises:
        OutsideTableError: A lookup's input is outside the table: ezkl would not prove this.
        AssertionError: A number would wrap in the field.
    """
    leaves = answered(chunk, vector, CHALLENGES, end)
    products = products_of(chunk.data)
    if products is None:
        return leaves
    *boundaries, leaf = leaves
    c = CHALLENGES
    expected = value_at(weighted(products, c.sigma), c.t)
    assert leaf == [c.rho, c.sigma, c.tau, c.t, 0, expected]
    return boundaries


def answered(
    chunk: HintedChunk, vector: Sequence[int], challenges: Challenges, end: int = 0
) -> list[list[int]]:
    """All that a chunk's circuit gives for an input and for challenges.

    Args:
        chunk: The circuit.
        vector: Its input.
        challenges: Those of its products.
        end: Where the table ends; 0: behind the digits of honest provers; -1: nowhere.

    Raises:
        OutsideTableError: A lookup's input is outside the table: ezkl would not prove this.
        AssertionError: A number would wrap in the field.
    """
    proto = onnx.ModelProto.FromString(chunk.data)
    known: dict[str, Objects] = {}
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        numbers = [int(v) if v == int(v) else float(v) for v in array.ravel()]
        known[tensor.name] = np.array(numbers, dtype=object).reshape(array.shape)
    c = challenges
    given_inputs = [list(vector)]
    if products := products_of(chunk.data):
        given_inputs.append(weighted(products, c.sigma))
    given_inputs.append([c.rho, c.sigma, c.tau, c.t])
    for source, numbers_ in zip(proto.graph.input, given_inputs, strict=False):
        assert [d.dim_value for d in source.type.tensor_type.shape.dim] == [len(numbers_)]
        known[source.name] = np.array(numbers_, dtype=object)
    of_challenges = {source.name for source in proto.graph.input[1:]}
    for node in proto.graph.node:
        given = [known[name] for name in node.input]
        found = _computed(node, given, chunk.numbers, end or chunk.numbers.divisor)
        if of_challenges.intersection(node.input):
            # The field's elements: nothing else may be made of them.
            assert node.op_type not in _TABLES
            of_challenges.update(node.output)
            known[node.output[0]] = np.asarray(found % MODULUS, dtype=object)
            continue
        # Two packed values and the salts' share of a leaf stay below the field's half.
        assert all(abs(v) < 1 << (PACKED_BITS + 1) for v in found.ravel()), node.op_type
        known[node.output[0]] = found
    return [[canonical(v) for v in known[output.name]] for output in proto.graph.output]


def checked(chunk: HintedChunk, arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Whole]:
    """Outputs that the circuit, fed by the recipe, gives; they are the reference's."""
    return checked_whole(chunk, chunk.quantised(arrays))


def checked_whole(chunk: HintedChunk, inputs: Mapping[str, Whole]) -> dict[str, Whole]:
    """The same of whole numbers."""
    leaves = evaluated(chunk, chunk.advice(inputs))
    found = chunk.outputs(leaves)
    for name, expected in chunk.reference(inputs).items():
        np.testing.assert_array_equal(found[name], expected)
    packed: list[list[int]] = []
    for tensor in (*chunk.incoming, *chunk.outgoing):
        values = found[tensor.info.name].ravel().tolist()
        leaf_values = pack_leaves(values, chunk.salts(tensor), tensor.layout)
        packed += [[canonical(v) for v in leaf] for leaf in leaf_values]
    assert packed == leaves
    return {tensor.info.name: found[tensor.info.name] for tensor in chunk.outgoing}


def saved(chunk: HintedChunk, folder: Path) -> Path:
    """The chunk's file."""
    path = folder / "chunk-000.onnx"
    path.write_bytes(chunk.data)
    return path


def _computed(
    node: onnx.NodeProto, given: Sequence[Objects], numbers: Arithmetic, end: int
) -> Objects:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in _TABLES:
        if end >= 0 and not all(0 <= v < end for v in given[0].ravel()):
            raise OutsideTableError(node.name)
        # Beyond its end, where that is not checked, a table gives something.
        digits = [v if end >= 0 else min(max(v, 0), numbers.digit_bound) for v in given[0].ravel()]
        found = [_TABLES[node.op_type](v, 1 << numbers.scale) for v in digits]
        return np.array(found, dtype=object).reshape(given[0].shape)
    if node.op_type == "Gather":
        return given[0].take(given[1].astype(np.int64), axis=0)
    if node.op_type == "Concat":
        return np.concatenate(given, axis=attributes["axis"])
    if node.op_type == "Reshape":
        return given[0].reshape(given[1].astype(np.int64))
    if node.op_type == "ReduceSum":
        return given[0].sum(axis=int(given[1][0]), keepdims=bool(attributes["keepdims"]))
    if node.op_type == "MatMul":
        return given[0].dot(given[1])
    if node.op_type == "Einsum":
        return _einsum(attributes["equation"].decode(), given)
    left, right = given
    if node.op_type == "Add":
        return left + right
    if node.op_type == "Sub":
        return left - right
    assert node.op_type == "Mul", node.op_type
    if isinstance(right.ravel()[0], float):
        # A product with 2^-k only gives a number another scale.
        assert right.shape == (1,)
        assert 1 / right[0] in (2 ** np.arange(1, 64)).tolist()
        return left
    return left * right


_TABLES: Mapping[str, Callable[[int, int], int]] = {
    "HardSwish": lambda value, _: value,
    "Erf": lambda value, one: math.floor(one * math.erf(value / one) + 0.5),
    "Exp": lambda value, one: math.floor(one * float(np.float32(np.e)) ** (value / one) + 0.5),
    "Tanh": lambda value, one: math.floor(one * math.tanh(value / one) + 0.5),
}
"""What ezkl's tables hold; for functions at the scale of `one`."""


def _einsum(equation: str, given: Sequence[Objects]) -> Objects:
    """Einstein's sum of two operands, no index twice in one."""
    terms, result = equation.split("->")
    first, second = terms.split(",")
    summed = [letter for letter in dict.fromkeys(first + second) if letter not in result]
    letters = [*result, *summed]

    def spread(operand: Objects, names: str) -> Objects:
        order = operand.transpose([names.index(letter) for letter in letters if letter in names])
        sizes = iter(order.shape)
        return order.reshape([next(sizes) if letter in names else 1 for letter in letters])

    found = spread(given[0], first) * spread(given[1], second)
    total = found.sum(axis=tuple(range(len(result), len(letters))))
    return np.array(total, dtype=object)

"""Hinted circuits under attack: a chunk whose input an attacker writes by hand.

Every cell of a hinted circuit follows from its one input, and what is looked up from the table: so
whatever a prover may try, he tries in the hints, values, salts and blinders that he puts there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ezkl
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.chunking.extract import CommittedTensor
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.extract import extract_hinted_chunk
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import METADATA_KEY, advice_of, filled, solve
from zkml_ray.chunking.normalize import normalise
from zkml_ray.circuits import backend
from zkml_ray.commitments.field import MODULUS, encode
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.schema.proof import ChunkProof

Ints = NDArray[np.int64]

FORWARD_BITS = 120
"""ezkl's forward pass computes with signed integers of 128 bits."""


def conv_model(*, pooled: bool) -> onnx.ModelProto:
    """x [1, 1, 6, 6] -> Conv 3x3, two channels -> ReLU (-> MaxPool 2x2)."""
    draw = np.random.default_rng(3)
    weights = {"w": draw.normal(size=(2, 1, 3, 3)) * 0.4, "b": draw.normal(size=2) * 0.2}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
    ]
    if pooled:
        nodes.append(
            helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2])
        )
    last, side = ("p", 2) if pooled else ("r", 4)
    return _model(nodes, weights, ("x", [1, 1, 6, 6]), (last, [1, 2, side, side]))


def dense_model() -> onnx.ModelProto:
    """x [1, 6] -> Gemm -> y [1, 8]; the first two inputs have no weight."""
    draw = np.random.default_rng(4)
    weight = draw.normal(size=(6, 8)) * 0.5
    weight[:2] = 0
    weights = {"w": weight, "b": draw.normal(size=8) * 0.2}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "dense")]
    return _model(nodes, weights, ("x", [1, 6]), ("y", [1, 8]))


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.float64]],
    source: tuple[str, list[int]],
    target: tuple[str, list[int]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "chunk",
        [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, source[1])],
        [helper.make_tensor_value_info(target[0], TensorProto.FLOAT, target[1])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@dataclass(frozen=True, slots=True)
class Roles:
    """Positions among a chunk's hints of its one settled form; -1 where there is no element.

    Attributes:
        results: Per digit, [A, B, p].
        distances: Per digit, [t, A, B, p]; empty without ReLU or maximum.
        remainders: [t, A, B, p], -1 in the first slots, which the circuit computes.
        stride: Packed elements stand 2^stride apart.
    """

    results: list[Ints]
    distances: list[Ints]
    remainders: Ints
    stride: int


class HintedChunk:
    """A model of one chunk, its circuit and keys, and proofs of inputs made by hand.

    Attributes:
        numbers: The circuit's numbers.
        values: The honest values of its incoming boundary.
        hints: The honest hints.
        salts: Honest salts, of the incoming and of the outgoing boundary.
        roles: What the hints are.
        incoming: The incoming boundary's layout.
        outgoing: The outgoing boundary's.
        blinder: Position in the input of a blinder that is looked up.
    """

    def __init__(
        self,
        folder: Path,
        model: onnx.ModelProto,
        numbers: Arithmetic,
        values: Sequence[int],
        columns: int = 2,
    ) -> None:
        graph = ModelGraph(normalise(model, {}))
        names = list(graph.nodes)
        bits = numbers.value_bound.bit_length()
        packing = PackingSpec.for_decomposition(1 << -(-bits // 2), 2)
        into, out = (
            CommittedTensor(
                info=crossing.tensor,
                layout=LeafLayout.plan(
                    int(np.prod(crossing.tensor.shape)), packing, salts_per_leaf=packing.pack
                ),
            )
            for crossing in graph.crossings([names])
        )
        self.numbers, self.values = numbers, list(values)
        self.incoming, self.outgoing = into.layout, out.layout
        data = extract_hinted_chunk(graph, names, [into], [out], numbers, columns=columns)
        self._model = onnx.load_from_string(data)
        self.hints: list[int] = solve(self._model, {into.info.name: values}, "chunk-000").tolist()
        draw = np.random.default_rng(5)
        self.salts = draw.integers(0, 1 << 10, into.layout.salt_count + out.layout.salt_count)
        advice = advice_of(self._model)
        self.blinder = int(advice.looked_up()[advice.hints.others()[0]])
        self.roles = self._roles()
        self._order = self._boundary_order()
        self._witness = folder / "witness"
        self._folder = folder
        self._onnx = folder / "chunk-000.onnx"
        self._onnx.write_bytes(data)
        arguments = CircuitArguments(
            input_scale=numbers.scale,
            param_scale=numbers.scale,
            decomp_base=packing.decomp_base,
            decomp_legs=packing.decomp_legs,
            num_inner_cols=columns,
            logrows=numbers.logrows,
            lookup_range=(0, numbers.divisor - 1),
            kind="hinted",
            range_bits=numbers.range_bits,
        )
        self._settings = folder / "settings"
        settings = backend.derive_settings(self._onnx, arguments)
        self._settings.write_bytes(settings.data)
        self._compiled = folder / "circuit"
        backend.compile_circuit(self._onnx, self._settings, self._compiled)
        # The same operators, whose forward pass admits inputs that the decomposition does not.
        args = backend.run_args(arguments)
        args.decomp_base, args.decomp_legs = 1 << 14, 9
        loose = folder / "loose-settings"
        loose.write_bytes(backend.settings_for(self._onnx, args).data)
        self._forward = folder / "loose-circuit"
        backend.compile_circuit(self._onnx, loose, self._forward)
        self._srs, self._vk, self._pk = (folder / name for name in ("srs", "vk", "pk"))

    @property
    def results(self) -> list[int]:
        """The honest results of the one settled form, in the order of their hints."""
        numbers = self.numbers
        total = 0
        for place, index in enumerate(self.roles.results):
            digits = np.asarray(self.hints)[index[index >= 0]]
            total = total + (digits << (numbers.overlap_bits * place))
        return [int(value) for value in np.asarray(total)]

    def solved(self, values: Sequence[int]) -> list[int]:
        """The honest hints of other values."""
        hints: list[int] = solve(self._model, {"x": list(values)}, "chunk-000").tolist()
        return hints

    def ordered(self, results: Sequence[int]) -> list[int]:
        """Results, which stand in the order of their hints, in the boundary's order."""
        return [results[place] for place in self._order]

    def input(
        self,
        *,
        hints: Sequence[int] | None = None,
        values: Sequence[int] | None = None,
        salts: Sequence[int] | None = None,
    ) -> list[int]:
        """The circuit's input; what is not given is honest."""
        given = [*(values or self.values), *(self.salts.tolist() if salts is None else salts)]
        chosen = np.asarray(self.hints if hints is None else hints, dtype=object)
        return filled(self._model, chosen, given)

    def accepts(self, vector: Sequence[int]) -> bool:
        """Whether an input satisfies every constraint of the circuit, whatever it is.

        Asked of halo2's mock prover, which checks each constraint by itself. `ezkl.prove` logs
        what is not in a table from threads that wait for the interpreter, which it holds: it would
        not return.
        """
        self._make_witness(vector)
        try:
            return bool(ezkl.mock(str(self._witness), str(self._compiled)))
        except RuntimeError as error:
            if "verification failed" not in str(error):
                raise
            return False

    def prove(self, vector: Sequence[int]) -> ChunkProof:
        """A proof of an input that satisfies the circuit."""
        if not self._vk.exists():
            backend.generate_insecure_srs(self._srs, self.numbers.logrows)
            backend.setup_keys(self._compiled, self._srs, self._vk, self._pk)
        self._make_witness(vector)
        return backend.prove("chunk-000", self._witness, self._compiled, self._pk, self._srs)

    def verifies(self, proof: ChunkProof) -> bool:
        """Whether a proof verifies under the honest key."""
        return backend.verify_proof(proof, self._settings, self._vk, self._srs)

    def _make_witness(self, vector: Sequence[int]) -> None:
        """Write a witness of any input.

        Elements of more than `FORWARD_BITS` bits take no part in the forward pass: what is claimed
        of the outputs is what they would be without them.
        """
        elements = [encode(v % MODULUS) for v in vector]
        small = [encode((v if abs(v) < 1 << FORWARD_BITS else 0) % MODULUS) for v in vector]
        data = self._folder / "input.json"
        data.write_text(json.dumps({"input_data": [small]}))
        ezkl.gen_witness(str(data), str(self._forward), str(self._witness))
        made = json.loads(self._witness.read_text())
        made["inputs"] = [elements]
        self._witness.write_text(json.dumps(made))

    def _boundary_order(self) -> list[int]:
        entry = next(e.value for e in self._model.metadata_props if e.key == METADATA_KEY)
        steps = json.loads(entry)["steps"]
        wire = next(step["wire"] for step in steps if step["do"] == "settle")
        constants = {t.name: t for t in self._model.graph.initializer}
        readers = [node for node in self._model.graph.node if wire in node.input]
        if [node.op_type for node in readers] != ["Gather"]:
            return []  # the results are no boundary
        order: list[int] = numpy_helper.to_array(constants[readers[0].input[1]]).tolist()
        return order

    def _roles(self) -> Roles:
        entry = next(e.value for e in self._model.metadata_props if e.key == METADATA_KEY)
        recipe = json.loads(entry)
        constants = {t.name: t for t in self._model.graph.initializer}
        arrays = [numpy_helper.to_array(t) for t in self._model.graph.initializer]
        powers = (a for a in arrays if a.ndim == 1 and len(a) > 1 and a[0] == 1)
        (stride,) = {int(np.log2(a[1])) for a in powers if a[1] > 1 << self.numbers.logrows}
        start, found = 0, []
        for step in recipe["steps"]:
            if step["do"] == "receive":
                start += (self.numbers.digits - 1) * len(self.values)
            if step["do"] != "settle":
                continue
            t, a, b, p = step["layout"]
            mask = numpy_helper.to_array(constants[step["valid"]]).astype(bool)
            valid = np.broadcast_to(mask, (a, b, p))
            every = np.broadcast_to(valid, (t, a, b, p)).copy()
            groups: list[Ints] = []
            for place in [valid] * self.numbers.digits + (
                [every] * self.numbers.digits if step["below_digits"] else []
            ):
                index, start = _numbered(place, start)
                groups.append(index)
            rest = every.copy()
            rest[..., 0] = False
            remainders, start = _numbered(rest, start)
            digits = self.numbers.digits
            found.append(Roles(groups[:digits], groups[digits:], remainders, stride))
        (roles,) = found
        assert start == len(self.hints)
        return roles


def _numbered(mask: NDArray[np.bool_], start: int) -> tuple[Ints, int]:
    index = np.full(mask.shape, -1, dtype=np.int64)
    count = int(mask.sum())
    index[mask] = np.arange(start, start + count)
    return index, start + count

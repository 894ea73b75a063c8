"""The circuit that `commit_nodes` builds computes what `pack_leaves` computes.

onnxruntime cannot hold sums of 2^120 exactly, so ezkl itself is asked: its witness holds the
outputs as field elements.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ezkl as _ezkl
import onnx
import pytest
from onnx import TensorProto, helper

from zkml_ray.commitments.field import decode, decode_signed, encode
from zkml_ray.commitments.graph import CommitGraph, commit_nodes
from zkml_ray.commitments.leaves import (
    LeafLayout,
    draw_salts,
    hash_leaves,
    pack_leaves,
    unpack_leaves,
)
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.errors import FieldRangeError

ezkl: Any = _ezkl  # its stub files leave out which arguments have defaults

SPEC = PackingSpec.for_decomposition(128, 4)
LARGEST_POWER = PackingSpec(decomp_base=128, decomp_legs=4, stride_bits=126, inner=2, outer=1)


def _plan(elements: int, spec: PackingSpec, max_slots: int, salts: int | None = None) -> LeafLayout:
    return LeafLayout.plan(elements, spec, max_slots=max_slots, salts_per_leaf=salts)


def _levels(inner: int, outer: int) -> PackingSpec:
    return PackingSpec(decomp_base=128, decomp_legs=4, stride_bits=30, inner=inner, outer=outer)


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """A circuit that only commits to its input."""

    directory: Path
    layout: LeafLayout
    logrows: int

    def path(self, suffix: str) -> str:
        return str(self.directory / f"circuit.{suffix}")

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads(Path(self.path("settings")).read_text())
        return settings

    def witness(self, values: list[int], salts: list[int]) -> dict[str, Any]:
        columns = [values, salts] if salts else [values]
        data = [[encode(number) for number in column] for column in columns]
        Path(self.path("input")).write_text(json.dumps({"input_data": data}))
        ezkl.gen_witness(self.path("input"), self.path("compiled"), self.path("witness"))
        witness: dict[str, Any] = json.loads(Path(self.path("witness")).read_text())
        return witness


def _graph(layout: LeafLayout, shape: tuple[int, ...]) -> CommitGraph:
    salt = "salt" if layout.salts_per_leaf else None
    return commit_nodes(prefix="b000", tensor="x", salt=salt, layout=layout, shape=shape)


def _model(layout: LeafLayout, shape: tuple[int, ...]) -> onnx.ModelProto:
    graph = _graph(layout, shape)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if graph.salt_input is not None:
        inputs.append(graph.salt_input)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "commit", inputs, graph.outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _compile(directory: Path, layout: LeafLayout, shape: tuple[int, ...], logrows: int) -> Circuit:
    circuit = Circuit(directory=directory, layout=layout, logrows=logrows)
    onnx.save(_model(layout, shape), circuit.path("onnx"))
    run_args = ezkl.PyRunArgs()
    run_args.input_visibility = "private"
    run_args.output_visibility = "hashed/public"
    run_args.param_visibility = "fixed"
    run_args.input_scale = run_args.param_scale = 7
    run_args.decomp_base = layout.packing.decomp_base
    run_args.decomp_legs = layout.packing.decomp_legs
    run_args.num_inner_cols = 3
    run_args.logrows = logrows
    run_args.rebase_frac_zero_constants = True
    ezkl.gen_settings(circuit.path("onnx"), circuit.path("settings"), run_args)
    ezkl.compile_circuit(circuit.path("onnx"), circuit.path("compiled"), circuit.path("settings"))
    return circuit


def _values(layout: LeafLayout) -> list[int]:
    bound = layout.packing.element_bound
    rng = random.Random(layout.element_count)
    extremes = [bound, -bound, 0, 1, -1]
    values = [rng.choice([*extremes, rng.randint(-bound, bound)]) for _ in range(1000)]
    return (extremes + values)[: layout.element_count]


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        pytest.param((1,), _plan(1, SPEC, 128), id="one element"),
        pytest.param((), _plan(1, SPEC, 128), id="scalar"),
        pytest.param((1, 10), _plan(10, SPEC, 128), id="one leaf"),
        pytest.param((2, 3, 5), _plan(30, SPEC, 16), id="leaves without a gap"),
        pytest.param((1, 2, 4, 4), _plan(32, SPEC, 24), id="last leaf partly filled"),
        pytest.param((5, 7), _plan(35, SPEC, 16, 0), id="no salts"),
        pytest.param((16,), _plan(16, SPEC, 16, 0), id="no salts, no padding"),
        pytest.param((11,), _plan(11, SPEC, 16), id="no padding"),
        pytest.param((200,), _plan(200, SPEC, 128), id="default size"),
        pytest.param((9,), _plan(9, _levels(4, 1), 12), id="inner level alone"),
        pytest.param((9,), _plan(9, _levels(1, 2), 12), id="outer level alone"),
        pytest.param((9,), _plan(9, _levels(1, 1), 10), id="nothing packed"),
        pytest.param((3,), _plan(3, LARGEST_POWER, 10), id="largest power of two"),
        pytest.param((33,), _plan(33, PackingSpec.for_decomposition(128, 2), 28), id="14 bits"),
        pytest.param((20,), _plan(20, PackingSpec.for_decomposition(100, 3), 30), id="base 100"),
        pytest.param((20,), _plan(20, PackingSpec.for_decomposition(1024, 4), 24), id="40 bits"),
    ],
)
def test_circuit_of_any_layout_computes_pack_leaves(
    tmp_path: Path, shape: tuple[int, ...], layout: LeafLayout
) -> None:
    circuit = _compile(tmp_path, layout, shape, logrows=14)
    values, salts = _values(layout), draw_salts(layout, seed=b"seed", label="b000")
    witness = circuit.witness(values, salts)
    outputs = [[decode_signed(text) for text in leaf] for leaf in witness["outputs"]]
    packed = pack_leaves(values, salts, layout)
    assert outputs == packed
    assert unpack_leaves(outputs, layout) == (values, salts)
    hashes = witness["processed_outputs"]["poseidon_hash"]
    assert [decode(text) for text in hashes] == hash_leaves(packed)


@pytest.mark.parametrize("elements", [10, 200])
def test_circuit_rescales_nothing_and_checks_inputs_alone(tmp_path: Path, elements: int) -> None:
    layout = _plan(elements, SPEC, 64)
    settings = _compile(tmp_path, layout, (elements,), logrows=13).settings
    assert settings["model_output_scales"] == [7] * layout.leaf_count
    assert settings["einsum_params"]["total_einsum_col_size"] == 0
    assert settings["required_lookups"] == []
    assert sorted(map(tuple, settings["required_range_checks"])) == [(-1, 1), (0, 127)]


@pytest.mark.parametrize(("elements", "most"), [(10, 306), (64, 1383), (500, 10503), (1176, 24471)])
def test_circuit_costs_no_more_than_measured(tmp_path: Path, elements: int, most: int) -> None:
    settings = _compile(tmp_path, _plan(elements, SPEC, 128), (1, elements), logrows=14).settings
    assert settings["total_assignments"] <= most


def test_proof_of_the_circuit_shows_the_leaf_hashes(tmp_path: Path) -> None:
    layout = _plan(20, SPEC, 16)
    circuit = _compile(tmp_path, layout, (4, 5), logrows=10)
    values, salts = _values(layout), draw_salts(layout, label="b000")
    circuit.witness(values, salts)
    srs = circuit.path("srs")
    ezkl.gen_srs(srs, circuit.logrows)
    ezkl.setup(circuit.path("compiled"), circuit.path("vk"), circuit.path("pk"), srs)
    proof = ezkl.prove(
        circuit.path("witness"),
        circuit.path("compiled"),
        circuit.path("pk"),
        circuit.path("proof"),
        srs,
    )
    assert ezkl.verify(circuit.path("proof"), circuit.path("settings"), circuit.path("vk"), srs)
    instances = [decode(text) for column in proof["instances"] for text in column]
    assert instances == hash_leaves(pack_leaves(values, salts, layout))


def test_names_start_with_the_prefix_and_number_the_leaves() -> None:
    layout = _plan(30, SPEC, 16)
    graph = _graph(layout, (30,))
    assert [output.name for output in graph.outputs] == [
        f"b000/leaf_{leaf:04d}" for leaf in range(layout.leaf_count)
    ]
    names = [name for node in graph.nodes for name in (node.name, *node.output)]
    names += [constant.name for constant in graph.initializers]
    assert all(name.startswith("b000/") for name in names)
    assert graph.salt_input is not None
    dims = graph.salt_input.type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [layout.leaf_count, layout.salts_per_leaf]


def test_powers_of_two_are_exact_in_float32() -> None:
    graph = _graph(_plan(30, SPEC, 16), (30,))
    powers = {
        constant.name: onnx.numpy_helper.to_array(constant).ravel().tolist()
        for constant in graph.initializers
        if constant.name.endswith("_powers")
    }
    assert powers == {
        "b000/inner_powers": [2**0, 2**30, 2**60, 2**90],
        "b000/outer_powers": [2**0, 2**120],
    }


@pytest.mark.parametrize("shape", [(29,), (31,), (), (5, 7)])
def test_shape_with_other_number_of_elements_is_refused(shape: tuple[int, ...]) -> None:
    if math.prod(shape) == 30:
        pytest.fail("the case must differ")
    with pytest.raises(FieldRangeError, match="30 elements"):
        _graph(_plan(30, SPEC, 16), shape)


@pytest.mark.parametrize(("salts", "name"), [(5, None), (0, "salt")])
def test_salt_name_that_does_not_fit_the_layout_is_refused(salts: int, name: str | None) -> None:
    layout = _plan(10, SPEC, 16, salts)
    with pytest.raises(FieldRangeError, match="salt"):
        commit_nodes(prefix="b000", tensor="x", salt=name, layout=layout, shape=(10,))

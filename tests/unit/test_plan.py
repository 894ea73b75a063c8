"""Plans follow from the model and the options alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.unit.chunking.builders import weight
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits.derive import rederive_circuits
from zkml_ray.errors import ChunkingError, ConfigError
from zkml_ray.schema.plan import Plan
from zkml_ray.stages.plan import CircuitKind, PlanOptions, plan

DIGEST = """
import sys
from pathlib import Path
from zkml_ray.chunking.load import load_model
from zkml_ray.stages.plan import PlanOptions, plan
print(plan(load_model(Path(sys.argv[1])), PlanOptions(circuits=sys.argv[2])).plan.digest())
"""


@pytest.mark.parametrize("circuits", ["hinted", "native"])
def test_plan_of_a_model_is_the_same_in_every_process(
    circuits: CircuitKind, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every plan is made: none finds another's in this machine's cache."""
    path = models / "residual.onnx"
    digests = set()
    for run in ("first", "second"):
        monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / run))
        digests.add(plan(load_model(path), PlanOptions(circuits=circuits)).plan.digest())
    for seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST, str(path), circuits],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "ZKML_RAY_CACHE": str(tmp_path / seed),
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_plan_does_not_depend_on_where_the_model_lies(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "another name.onnx"
    copy.write_bytes((models / "mlp.onnx").read_bytes())
    first = plan(load_model(models / "mlp.onnx"), PlanOptions()).plan
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "empty"))
    assert plan(load_model(copy), PlanOptions()).plan == first


def test_plan_rederived_with_its_own_arguments_is_the_same(models: Path) -> None:
    model = load_model(models / "residual.onnx")
    made = plan(model, PlanOptions(scale=8, layers_per_chunk=2))
    again = rederive_circuits(model, made.plan)
    assert again.plan == made.plan
    assert again.files == made.files


def test_plan_records_the_digests_of_its_files(models: Path) -> None:
    model = load_model(models / "mlp.onnx")
    made = plan(model, PlanOptions())
    assert made.plan.model_sha256 == sha256_hex(model.data)
    assert made.plan.normalised_sha256 == sha256_hex(made.normalised)
    for chunk in made.plan.chunks:
        assert chunk.onnx_sha256 == sha256_hex(made.files[chunk.id].onnx)
        assert chunk.settings_sha256 == sha256_hex(made.files[chunk.id].settings)


@pytest.mark.parametrize("circuits", ["hinted", "native"])
def test_kept_plan_is_the_one_that_was_made(
    circuits: CircuitKind, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path))
    model, options = load_model(models / "mlp.onnx"), PlanOptions(circuits=circuits)
    made = plan(model, options)
    assert len(list((tmp_path / "plans").iterdir())) >= 1
    assert plan(model, options) == made


def test_plan_read_back_from_its_bytes_is_the_same(models: Path) -> None:
    made = plan(load_model(models / "mlp.onnx"), PlanOptions()).plan
    assert Plan.parse(made.to_bytes(), what="plan") == made


@pytest.mark.parametrize(
    "options",
    [
        PlanOptions(scale=9),
        PlanOptions(layers_per_chunk=1),
        PlanOptions(salted=False),
        PlanOptions(max_leaf_slots=64),
    ],
    ids=["scale", "layers", "salt", "leaf"],
)
def test_plan_with_another_option_has_another_digest(models: Path, options: PlanOptions) -> None:
    model = load_model(models / "mlp.onnx")
    assert plan(model, options).plan.digest() != plan(model, PlanOptions()).plan.digest()


@pytest.mark.parametrize("scale", [0, -1, 21])
def test_plan_options_with_a_bad_scale_are_refused(scale: int) -> None:
    with pytest.raises(ConfigError, match="scale"):
        PlanOptions(scale=scale)


def test_plan_with_no_layer_per_chunk_is_refused(models: Path) -> None:
    with pytest.raises(ConfigError, match="layers per chunk"):
        plan(load_model(models / "mlp.onnx"), PlanOptions(layers_per_chunk=0))


@pytest.mark.parametrize("layers_per_chunk", [None, 1, 9])
def test_layer_with_functions_of_two_tables_is_planned_in_two_chunks(
    layers_per_chunk: int | None, tmp_path: Path
) -> None:
    """Mish is a softplus, by the exponential, and a hyperbolic tangent of it."""
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["m"], "fc"),
                helper.make_node("Mish", ["m"], ["y"], "mish"),
            ],
            "test",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])],
            [weight("w", 4, 3)],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(proto, tmp_path / "mish.onnx")
    options = PlanOptions(scale=7, circuits="hinted", layers_per_chunk=layers_per_chunk)
    made = plan(load_model(tmp_path / "mish.onnx"), options).plan
    assert [chunk.arguments.kind for chunk in made.chunks] == ["hinted"] * 2


@pytest.mark.parametrize(("threshold", "bits"), [(3.0, 5), (100.0, 7), (1000.0, 10), (5000.0, 0)])
def test_comparison_with_a_large_constant_widens_the_range(
    threshold: float, bits: int, tmp_path: Path
) -> None:
    """As far as hinted circuits go; beyond, and where the user asked for them, it says so."""
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Greater", ["x", "k"], ["c"], "above"),
                helper.make_node("Where", ["c", "x", "z"], ["y"], "choose"),
            ],
            "test",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
            [
                numpy_helper.from_array(np.float32([threshold]), "k"),
                numpy_helper.from_array(np.float32([0.5]), "z"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(proto, tmp_path / "m.onnx")
    made = plan(load_model(tmp_path / "m.onnx"), PlanOptions(scale=10))
    (chunk,) = made.plan.chunks
    assert chunk.arguments.kind == ("hinted" if bits else "native")
    if bits:
        assert chunk.arguments.range_bits == bits
        told = [notice for notice in made.notices if "values may reach" in notice]
        assert len(told) == (bits > 5)
    if bits != 5:
        with pytest.raises(ChunkingError, match="outside --range-bits 5: --range-bits"):
            plan(load_model(tmp_path / "m.onnx"), PlanOptions(scale=10, circuits="hinted"))


@pytest.mark.parametrize(
    ("factor", "bits"), [(20.0, 5), (100.0, 7), (400.0, 9), (600.0, 10), (5000.0, 0)]
)
def test_random_input_that_leaves_the_range_widens_it_or_makes_circuits_native(
    factor: float, bits: int, tmp_path: Path
) -> None:
    """The whole part of what reaches as far as a factor, which is no constant that is compared."""
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Mul", ["x", "k"], ["m"], "scale"),
                helper.make_node("Floor", ["m"], ["f"], "floor"),
                helper.make_node("Sub", ["m", "f"], ["y"], "rest"),
            ],
            "test",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 64])],
            [numpy_helper.from_array(np.float32([factor]), "k")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(proto, tmp_path / "m.onnx")
    made = plan(load_model(tmp_path / "m.onnx"), PlanOptions(scale=8))
    (chunk,) = made.plan.chunks
    assert (chunk.arguments.kind, chunk.arguments.range_bits) == (
        ("hinted", bits) if bits else ("native", 0)
    )
    told = [notice for notice in made.notices if "of a random input" in notice]
    assert any("values may reach" in notice for notice in told) == (bits > 5)

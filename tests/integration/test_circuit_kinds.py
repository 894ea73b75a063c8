"""--circuits and --range-bits: what is chosen, shown, refused, and proved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.integration.command import run_here
from tests.unit.chunking.builders import model as build
from tests.unit.chunking.builders import weight
from zkml_ray import PlanOptions, prove_distributed, resume, verify
from zkml_ray.api import Run, prepare
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.hinted.refusal import NotHintedError
from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.circuits.derive import rederive_circuits
from zkml_ray.circuits.sealing import seal
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.profiles import shipped_profile
from zkml_ray.errors import ChunkingError, ConfigError, RangeExceededError, TrustRootError
from zkml_ray.events import Event, Warned
from zkml_ray.schema.plan import Plan
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.plan import MAX_AUTO_SCALE, plan
from zkml_ray.verifying.extent import check_extent, check_structure
from zkml_ray.verifying.trust import TrustRoot, check_named, check_rebuilt

MIB = 1 << 20
PROFILE = shipped_profile()
SMALL = ["--scale", "7", "--layers-per-chunk", "1"]


@pytest.fixture(scope="module")
def no_hints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense layer and a Sin, which has no hinted form."""
    proto = build(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], "fc"),
            helper.make_node("Sin", ["a"], ["y"], "most"),
        ],
        {"x": [1, 4]},
        {"y": [1, 3]},
        [weight("w", 4, 3)],
    )
    path = tmp_path_factory.mktemp("model") / "most.onnx"
    onnx.save(proto, path)
    return path


def kinds(document: dict[str, Any]) -> set[str]:
    assert document["circuits"].keys() == {chunk["id"] for chunk in document["plan"]["chunks"]}
    return set(document["circuits"].values())


def test_plan_is_hinted_by_default_and_says_so(models: Path) -> None:
    found = run_here("plan", models / "mlp.onnx", *SMALL, "--json").json
    assert (kinds(found), found["notices"]) == ({"hinted"}, [])
    for chunk in found["plan"]["chunks"]:
        assert (chunk["arguments"]["kind"], chunk["arguments"]["range_bits"]) == ("hinted", 5)
    shown = run_here("plan", models / "mlp.onnx", *SMALL).stdout
    assert shown.count("hinted") == 3 + 1
    assert "Circuits: hinted, 3 of 3; inputs and rounded activations within +-32" in shown


def test_plan_of_native_circuits_says_so(models: Path) -> None:
    found = run_here("plan", models / "mlp.onnx", *SMALL, "--circuits", "native")
    assert "Circuits: native, all 3." in found.stdout
    assert "hinted" not in found.stdout


def test_model_without_a_hinted_form_falls_back_and_says_why(no_hints: Path) -> None:
    found = run_here("plan", no_hints, *SMALL, "--json").json
    assert kinds(found) == {"native"}
    (notice,) = found["notices"]
    assert "native circuits, because" in notice
    assert "Sin (node 'most') has no hinted form" in notice
    assert f"Note: {notice}" in run_here("plan", no_hints, *SMALL).stdout
    refused = run_here("plan", no_hints, *SMALL, "--circuits", "hinted")
    assert (refused.code, refused.stdout) == (4, "")
    assert "Sin (node 'most') has no hinted form" in refused.errors[0]
    asked = run_here("plan", no_hints, *SMALL, "--circuits", "native", "--json").json
    assert asked["notices"] == []
    assert asked["plan"] == found["plan"]


def test_scale_whose_table_is_too_long_falls_back_and_says_why(models: Path) -> None:
    scale = MAX_AUTO_SCALE + 1
    made = plan(load_model(models / "mlp.onnx"), PlanOptions(scale=scale, layers_per_chunk=1))
    assert {chunk.arguments.kind for chunk in made.plan.chunks} == {"native"}
    assert made.notices[0].endswith(f"at scale {scale} their table needs 2^{scale + 2} rows")


def test_passes_have_no_effect_on_hinted_circuits_which_is_said(models: Path) -> None:
    found = run_here("plan", models / "mlp.onnx", *SMALL, "--passes", "none", "--json").json
    assert found["notices"] == ["rewrite passes have no effect on hinted circuits"]
    assert found["plan"] == run_here("plan", models / "mlp.onnx", *SMALL, "--json").json["plan"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--circuits", "both"], "auto, hinted, native"),
        (["--range-bits", "21"], "range bits"),
        (["--range-bits", "-1"], "range bits"),
        (["--range-bits", "wide"], "--range-bits"),
    ],
)
def test_options_that_are_none_are_refused(models: Path, options: list[str], word: str) -> None:
    for command in ("plan", "prove"):
        found = run_here(command, models / "mlp.onnx", *options)
        assert found.code == 2
        assert word in found.errors[0]


@pytest.mark.parametrize("range_bits", [0, 2, 5, 8, 12])
def test_every_range_has_circuits_that_the_verifier_derives_again(
    models: Path, range_bits: int
) -> None:
    model = load_model(models / "residual.onnx")
    options = PlanOptions(scale=6, layers_per_chunk=2, circuits="hinted", range_bits=range_bits)
    made = plan(model, options)
    assert {chunk.arguments.range_bits for chunk in made.plan.chunks} == {range_bits}
    assert rederive_circuits(model, made.plan).plan == made.plan
    samples = [{"x": np.linspace(-0.1, 0.1, 6, dtype=np.float32)[None]}]
    assert measure_accuracy(model, made, samples).max_abs_error < 0.05


@pytest.mark.parametrize(("scale", "range_bits"), [(8, 20), (20, 20)])
def test_range_that_nothing_holds_is_refused_with_what_to_do(
    models: Path, scale: int, range_bits: int
) -> None:
    options = PlanOptions(scale=scale, layers_per_chunk=1, circuits="hinted", range_bits=range_bits)
    with pytest.raises(ChunkingError, match=r"smaller .*--range-bits"):
        plan(load_model(models / "mlp.onnx"), options)


def test_circuits_of_no_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="circuits must be one of auto, hinted, native, not any"):
        PlanOptions(circuits="any")  # type: ignore[arg-type]


def test_choice_is_kept_in_the_request(models: Path, tmp_path: Path) -> None:
    options = PlanOptions(scale=7, circuits="native", range_bits=9)
    request = prepare(models / "mlp.onnx", store=tmp_path, run_id="kept", options=options)
    assert PlanOptions.of(request.choices) == options
    assert PlanOptions().circuits == "auto"
    older = request.choices.model_dump(exclude={"circuits", "range_bits"})
    assert type(request.choices).model_validate(older).circuits == "auto"


# Memory.


def wide_model(folder: Path) -> Path:
    """Three dense layers that are too wide for the smallest circuit."""
    generator = np.random.default_rng(5)
    nodes, weights, last = [], [], "x"
    for index in range(3):
        values = generator.normal(size=(96, 96)).astype(np.float32) / 10
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"a{index}"], f"fc{index}"))
        nodes.append(helper.make_node("Relu", [f"a{index}"], [f"r{index}"], f"relu{index}"))
        last = f"r{index}"
    proto = build(nodes, {"x": [1, 96]}, {last: [1, 96]}, weights)
    path = folder / "wide.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(("mib", "chunks"), [(None, 1), (270, 2), (240, 3)])
def test_hinted_chunks_are_cut_until_they_keep_within_the_memory(
    mib: int | None, chunks: int, tmp_path: Path
) -> None:
    made = plan(load_model(wide_model(tmp_path)), memory_options(mib), PROFILE)
    forecast = CostModel(profile=PROFILE).forecast(made)
    assert len(made.plan.chunks) == chunks
    assert mib is None or max(chunk.peak_bytes for chunk in forecast.chunks) <= mib * MIB


def test_memory_that_no_hinted_chunk_keeps_within_is_refused(tmp_path: Path) -> None:
    model = load_model(wide_model(tmp_path))
    with pytest.raises(ChunkingError, match=r"needs about \d+ MiB, more than the 90 MiB"):
        plan(model, memory_options(100), PROFILE)
    by_layer = replace(memory_options(200), layers_per_chunk=1)
    with pytest.raises(
        ChunkingError, match=r"chunk-000 needs about \d+ MiB, more than the 181 MiB"
    ):
        plan(model, by_layer, PROFILE)


def memory_options(mib: int | None) -> PlanOptions:
    memory = None if mib is None else mib * MIB
    return PlanOptions(scale=7, workers=1, memory_bytes=memory, circuits="hinted")


# Proofs.


@pytest.mark.ray
def test_value_that_left_the_range_is_proved_with_more_range_bits(
    ray_cluster: None, models: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "input.npy", np.full((1, 8), 40.0, dtype=np.float32))
    given = [models / "mlp.onnx", "--input", tmp_path / "input.npy", "--store", tmp_path, *SMALL]
    refused = run_here("prove", *given, "--run", "narrow")
    assert refused.code == 2
    assert "+-32" in refused.errors[0]
    assert "--range-bits" in refused.errors[0]
    found = run_here("prove", *given, "--run", "wide", "--range-bits", "8", "--json")
    assert found.code == 0, found.stderr
    assert found.json["verified"]
    root = ["--model", models / "mlp.onnx", "--store", tmp_path, "--allow-insecure-srs"]
    assert run_here("verify", "wide", *root).code == 0
    with pytest.raises(RangeExceededError, match="--range-bits"):
        resume("narrow", store=tmp_path, workers=1)


@pytest.mark.ray
def test_native_circuits_are_proved_and_verified_on_request(
    ray_cluster: None, models: Path, tmp_path: Path
) -> None:
    model = models / "two_outputs.onnx"
    options = PlanOptions(scale=7, circuits="native")
    run = prove_distributed(model, 1, store=tmp_path, run_id="native", options=options)
    assert {chunk.arguments.kind for chunk in run.plan.chunks} == {"native"}
    assert verify("native", store=tmp_path, model=model, allow_insecure_srs=True).ok


@pytest.mark.ray
def test_fallback_is_a_warning_of_the_run(
    ray_cluster: None, no_hints: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    options = PlanOptions(scale=7, layers_per_chunk=9)
    run = prove_distributed(no_hints, 1, store=tmp_path, options=options, listener=events.append)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert any("Sin (node 'most') has no hinted form" in message for message in told)
    assert any(
        "Sin (node 'most') has no hinted form" in message for message in run.manifest.warnings
    )


# The trust root "model".


@pytest.mark.ray
def test_hinted_run_is_accepted_by_its_model_and_by_no_other(
    mlp_run: Run, models: Path, tmp_path: Path
) -> None:
    assert {chunk.arguments.kind for chunk in mlp_run.plan.chunks} == {"hinted"}
    where = {"store": mlp_run.store, "project": "shared", "allow_insecure_srs": True}
    assert verify("mlp", model=models / "mlp.onnx", **where).ok
    other = changed_weight(models / "mlp.onnx", tmp_path / "other.onnx", 1 / 64)
    with pytest.raises(TrustRootError) as caught:
        verify("mlp", model=other, **where)
    assert caught.value.code == "model-digest"


def test_hinted_plan_of_other_weights_is_refused_whatever_model_it_names(
    models: Path, tmp_path: Path
) -> None:
    """A plan that is the forger's in all but the model's digest; one weight is one step off."""
    options = PlanOptions(scale=7, layers_per_chunk=1, circuits="hinted")
    honest = load_model(models / "mlp.onnx")
    step = 1 / plan(honest, options).plan.chunks[0].arguments.lookup_range[1]
    forged = load_model(changed_weight(models / "mlp.onnx", tmp_path / "forged.onnx", step))
    sealed = seal(plan(forged, options))
    trust = TrustRoot(model=honest)
    with pytest.raises(TrustRootError):
        check_named(trust, sealed, sealed.digest())
    claimed = sealed.plan.model_copy(
        update={"model_sha256": plan(honest, options).plan.model_sha256}
    )
    sealed = sealed.model_copy(update={"plan": claimed})
    check_named(trust, sealed, sealed.digest())
    srs = {pin.logrows: ensure_srs(pin.logrows).path for pin in sealed.srs}
    with pytest.raises(TrustRootError) as caught:
        check_rebuilt(honest, structure(honest, sealed.plan), sealed, srs)
    assert caught.value.code == "model-circuits"
    own = seal(plan(honest, options))
    _, keys = check_rebuilt(honest, structure(honest, own.plan), own, srs)
    assert keys.keys() == {chunk.id for chunk in own.plan.chunks}


def structure(model: LoadedModel, plan: Plan) -> ModelGraph:
    return check_structure(check_extent(model, plan), plan)


def changed_weight(source: Path, target: Path, by: float) -> Path:
    """A copy of a model whose first weight differs."""
    proto = onnx.load(source)
    tensor = proto.graph.initializer[0]
    values = numpy_helper.to_array(tensor).copy()
    values.ravel()[0] += by
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, target)
    return target


@pytest.mark.slow
@pytest.mark.ray
def test_functions_of_all_kinds_are_proved_in_hinted_circuits(
    ray_cluster: None, tmp_path: Path
) -> None:
    """Tables of tanh, of the exponential and of erf; bits, whole numbers, quotients, roots."""
    node = helper.make_node
    proto = build(
        [
            node("MatMul", ["x", "w"], ["m"], "fc"),
            node("Sigmoid", ["m"], ["s"], "gate"),
            node("Tanh", ["m"], ["t"], "state"),
            node("Mul", ["s", "t"], ["g"], "gated"),
            node("Softplus", ["g"], ["p"], "soft"),
            node("Sqrt", ["p"], ["r"], "root"),
            node("Div", ["g", "r"], ["q"], "quotient"),
            node("Erf", ["q"], ["e"], "erf"),
            node("Greater", ["e", "x0"], ["c"], "compare"),
            node("Where", ["c", "q", "e"], ["o"], "choose"),
            node("Floor", ["o"], ["f"], "floor"),
            node("Sub", ["o", "f"], ["y"], "rest"),
        ],
        {"x": [1, 4]},
        {"y": [1, 4]},
        [weight("w", 4, 4), numpy_helper.from_array(np.float32([0.125]), "x0")],
    )
    onnx.save(proto, tmp_path / "functions.onnx")
    options = PlanOptions(scale=8, circuits="hinted")
    model = tmp_path / "functions.onnx"
    run = prove_distributed(model, 1, store=tmp_path, run_id="all", options=options)
    assert len(run.plan.chunks) == 3
    assert {chunk.arguments.kind for chunk in run.plan.chunks} == {"hinted"}
    assert verify("all", store=tmp_path, model=model, allow_insecure_srs=True).ok


def test_products_have_no_effect_on_native_circuits_which_is_said(models: Path) -> None:
    given = ("plan", models / "mlp.onnx", *SMALL, "--circuits", "native")
    found = run_here(*given, "--products", "challenge", "--json").json
    assert found["notices"] == ["--products challenge has no effect on native circuits"]
    usual = run_here(*given, "--json").json["plan"]
    assert found["plan"]["chunks"] == usual["chunks"]


def test_refusal_is_what_no_other_rows_mend(tmp_path: Path) -> None:
    """Softmax has a form in circuits of some rows alone; where those are refused, that is why."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.normal(size=(8, 8)).astype(np.float32) * 0.3, name)
        for name in "qkv"
    ]
    nodes = [helper.make_node("MatMul", ["x", name], [f"x{name}"]) for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["xk"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["xq", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "xv"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["y"], "residual"),
    ]
    proto = build(nodes, {"x": [1, 4, 8]}, {"y": [1, 4, 8]}, weights)
    onnx.save(proto, tmp_path / "attention.onnx")
    with pytest.raises(NotHintedError, match=r"residual.*too large for their scale"):
        plan(load_model(tmp_path / "attention.onnx"), PlanOptions(circuits="hinted"))

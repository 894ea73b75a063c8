"""A prover who plans coarsely proves a caricature of the model: the verifier's floors refuse it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import zoo
from tests.unit.chunking.test_hinted_functions import CASES
from zkml_ray import PlanOptions, SampleInputs, VerifierPolicy, limits, verify
from zkml_ray.chunking.load import load_model
from zkml_ray.chunking.passes.base import ANY_BITS
from zkml_ray.chunking.rewrite import PASSES
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.errors import ConfigError, InputError, VerificationError
from zkml_ray.schema.plan import CircuitArguments, Plan
from zkml_ray.stages import plan as planning
from zkml_ray.stages.accuracy import AUTO_SCALES
from zkml_ray.stages.plan import plan as make_plan
from zkml_ray.stages.size import choose_arguments
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.verifying.extent import check_extent
from zkml_ray.verifying.policy import WEIGHT_REWRITES, check_policy, check_weights, shortfalls
from zkml_ray.verifying.trust import TrustRoot, check_arguments
from zkml_ray.verifying.verifier import verify_run

from .here import prove_here
from .tally import TALLY

NO_FLOORS = VerifierPolicy(min_scale=1, min_weight_bits=1, min_table_bits=1, max_weight_loss=1)


ONE_BIT = PlanOptions(scale=10, circuits="native", passes=(), layers_per_chunk=99)

QUICK = ("lenet5", "mobilenet", "norm_pool", "residual", "resnet")


def coarse_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner whose native circuits keep one bit of every weight, and fine activations."""

    def one_bit(chunk_id: str, path: Path, scale: int, _bits: int, *more: Any) -> CircuitArguments:
        return choose_arguments(chunk_id, path, scale, 1, *more)

    monkeypatch.setattr(planning, "choose_arguments", one_bit)
    # No cache of plans may keep what he makes.
    monkeypatch.setattr(planning, "kept_plan", lambda _model, _choices, _profile, make: make())


def test_caricature_of_the_model_is_refused_though_every_proof_holds(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight bit: a digit is proved to be another one, by a plan that is the model's."""
    coarse_planner(monkeypatch)
    model, store = digits / "digits.onnx", tmp_path / "store"
    image = tmp_path / "image.npy"
    coarse = digits_plan(digits, 10)
    for pixels in np.load(digits / "test_images.npz")["images"]:
        np.save(image, pixels[None])
        if SampleInputs([image])(load_model(model), coarse).top1_agreement == 0:
            break
    run = prove_here(
        model,
        inputs=image,
        store=store,
        run_id="caricature",
        options=ONE_BIT,
        max_error="none",
    )
    (proved,), (exact,) = run.outputs.values(), run.float_outputs.values()
    assert int(exact.argmax()) != int(proved.argmax())
    assert any("refuses this plan by default" in warning for warning in run.manifest.warnings)

    def verified(**arguments: Any) -> Any:
        return verify("caricature", store=store, allow_insecure_srs=True, **arguments)

    TALLY.refused_with(lambda: verified(model=model), "plan-precision", case="one weight bit")
    # Nothing else is wrong with it: whoever sets no floors has it verified, and is told so.
    verdict = verified(model=model, policy=NO_FLOORS)
    (shown,) = [verdict.revealed[name] for name in run.plan.model_outputs]
    assert int(np.argmax(shown)) == int(proved.argmax())
    assert verdict.plan_chosen_by == "prover" and "weights of 2^-1 or finer" in verdict.choice
    # His own data tell a verifier as much, and more of a plan that is within the floors.
    TALLY.refused_with(
        lambda: verified(
            model=model,
            policy=NO_FLOORS,
            measure=SampleInputs([image], min_agreement=1.0),
        ),
        "accuracy",
        case="one weight bit, measured",
    )
    # A digest's author chose the plan; floors that the verifier states hold there too.
    digest = run.manifest.plan_sha256
    by_digest = verified(plan_digest=digest)
    assert (by_digest.plan_chosen_by, by_digest.policy) == ("author of the plan digest", None)
    assert "no floors were set" in by_digest.choice
    TALLY.refused_with(
        lambda: verified(plan_digest=digest, policy=VerifierPolicy()),
        "plan-precision",
        case="one weight bit, by digest",
    )


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path: Path = tmp_path_factory.mktemp("model") / "residual.onnx"
    onnx.save(zoo.residual(), path)
    return make_plan(load_model(path), PlanOptions(layers_per_chunk=1, circuits="native")).plan


@pytest.fixture(scope="module")
def hinted(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A circuit with a function's table."""
    path: Path = tmp_path_factory.mktemp("model") / "norm.onnx"
    onnx.save(CASES["layer norm between layers"].proto(), path)
    return make_plan(load_model(path), PlanOptions(scale=8, circuits="hinted")).plan


def edited(plan: Plan, edit: Callable[[dict[str, Any]], None]) -> Plan:
    document = plan.model_dump(mode="json")
    edit(document)
    return Plan.model_validate_json(json.dumps(document))


def in_every_circuit(plan: Plan, **values: int) -> Plan:
    def edit(document: dict[str, Any]) -> None:
        for chunk in document["chunks"]:
            chunk["arguments"].update(values)

    return edited(plan, edit)


def refused(plan: Plan, policy: VerifierPolicy, option: str) -> None:
    with pytest.raises(VerificationError, match=option) as caught:
        check_policy(plan, policy)
    assert caught.value.code == "plan-precision"
    assert caught.value.message == shortfalls(plan, policy)


@pytest.mark.parametrize("floor", range(1, limits.MAX_SCALE_BITS + 1))
def test_floor_of_the_scale_refuses_exactly_what_is_below_it(native: Plan, floor: int) -> None:
    policy = VerifierPolicy(min_scale=floor, min_weight_bits=1, min_table_bits=1, max_weight_loss=1)
    for scale in range(1, limits.MAX_SCALE_BITS + 1):
        plan = edited(native, lambda document, scale=scale: document.update(input_scale=scale))
        if scale < floor:
            refused(plan, policy, "--min-scale")
        else:
            check_policy(plan, policy)


@pytest.mark.parametrize("floor", range(1, limits.MAX_SCALE_BITS + 1))
def test_floor_of_weight_bits_refuses_exactly_what_is_below_it(native: Plan, floor: int) -> None:
    """One coarse circuit among fine ones is enough."""
    policy = VerifierPolicy(min_scale=1, min_weight_bits=floor, min_table_bits=1, max_weight_loss=1)
    fine = edited(in_every_circuit(native, param_scale=20), lambda d: d.update(rewrites=[]))
    check_policy(fine, policy)
    for bits in range(1, limits.MAX_SCALE_BITS + 1):

        def edit(document: dict[str, Any], bits: int = bits) -> None:
            document["chunks"][-1]["arguments"].update(param_scale=bits)

        plan = edited(fine, edit)
        check_arguments(plan)  # sound, however coarse
        if bits < floor:
            refused(plan, policy, "--min-weight-bits")
        else:
            check_policy(plan, policy)


def test_rewrites_that_round_weights_are_those_that_take_bits() -> None:
    assert {name for name, step in PASSES.items() if step.parameters == ANY_BITS} == WEIGHT_REWRITES


@pytest.mark.parametrize("name", sorted(PASSES))
def test_floor_of_weight_bits_holds_for_rewrites_that_round_weights(
    native: Plan, name: str
) -> None:
    for bits in range(limits.MAX_SCALE_BITS + 1):
        step = {"name": name, "node": "layer", "parameter": bits}
        plan = edited(native, lambda document, step=step: document.update(rewrites=[step]))
        if name in WEIGHT_REWRITES and bits < limits.MIN_WEIGHT_BITS:
            refused(plan, VerifierPolicy(), "--min-weight-bits")
        else:
            check_policy(plan, VerifierPolicy())


def test_floors_of_hinted_circuits_are_of_their_rows(hinted: Plan) -> None:
    check_policy(hinted, VerifierPolicy())
    rows = min(chunk.arguments.logrows for chunk in hinted.chunks)
    refused(hinted, VerifierPolicy(min_weight_bits=rows + 1), "--min-weight-bits")
    coarse = in_every_circuit(hinted, logrows=8 + limits.MIN_TABLE_BITS - 1)
    refused(coarse, VerifierPolicy(), "--min-table-bits")
    check_policy(coarse, VerifierPolicy(min_table_bits=limits.MIN_TABLE_BITS - 1))
    # Without a function the rows are the weights' bits and nothing else.
    check_policy(
        edited(coarse, lambda d: [chunk.update(operators=["Gemm"]) for chunk in d["chunks"]]),
        VerifierPolicy(),
    )


def with_small_weights(by: float) -> onnx.ModelProto:
    """The perceptron, its first layer's weights scaled down and its second's up by as much."""
    proto = onnx.ModelProto()
    proto.CopyFrom(zoo.mlp())
    for tensor, factor in zip(proto.graph.initializer[:3:2], (by, 1 / by), strict=True):
        scaled = numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    onnx.checker.check_model(proto)
    return proto


@pytest.mark.parametrize("power", range(0, 13, 2))
def test_weights_that_rounding_would_wipe_out_are_refused_whatever_their_bits(
    tmp_path: Path, power: int
) -> None:
    """Below half a step weights are zero: bits after the point do not tell."""
    path = tmp_path / "small.onnx"
    onnx.save(with_small_weights(2.0**-power), path)
    model = load_model(path)
    options = PlanOptions(scale=10, layers_per_chunk=9, circuits="native", passes=())
    honest = make_plan(model, options)
    normalised = check_extent(model, honest.plan)
    check_weights(honest.plan, normalised, VerifierPolicy())
    assert [notice for notice in honest.notices if "refuses" in notice] == []
    first = next(node for node in normalised.nodes.values() if node.op_type in ("Gemm", "MatMul"))
    weight = numpy_helper.to_array(normalised.initializers[first.input[1]]).astype(np.float64)
    step = {"name": "dense-integer", "node": first.name, "parameter": 8}
    plan = edited(honest.plan, lambda document: document.update(rewrites=[step]))
    check_policy(plan, VerifierPolicy())
    lost = np.linalg.norm(weight - np.rint(weight * 256) / 256) / np.linalg.norm(weight)
    assert (lost > limits.MAX_WEIGHT_LOSS) == (power >= 6)
    if power < 6:
        check_weights(plan, normalised, VerifierPolicy())
    else:
        with pytest.raises(VerificationError, match="max-weight-loss") as caught:
            check_weights(plan, normalised, VerifierPolicy())
        assert (caught.value.code, caught.value.subject) == ("plan-precision", first.name)
        assert caught.value.message == shortfalls(plan, VerifierPolicy(), normalised)
    # The floor is where it says, for any share.
    check_weights(plan, normalised, VerifierPolicy(max_weight_loss=min(1.0, lost * 1.001)))
    with pytest.raises(VerificationError):
        check_weights(plan, normalised, VerifierPolicy(max_weight_loss=lost * 0.5))


@pytest.mark.parametrize(
    ("name", "circuits"),
    [
        pytest.param(
            name, kind, marks=[] if kind == "auto" and name in QUICK else [pytest.mark.slow]
        )
        for name in sorted(zoo.MODELS)
        for kind in ("auto", "native")
    ],
)
def test_plans_of_common_models_are_within_the_floors_at_the_least_scale(
    name: str, circuits: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(zoo.MODELS[name](), path)
    scale = 12 if name == "transformer" and circuits == "auto" else limits.MIN_SCALE
    options = PlanOptions(scale=scale, layers_per_chunk=99, circuits=circuits)
    made = make_plan(load_model(path), options)
    assert [notice for notice in made.notices if "refuses" in notice] == []


@pytest.mark.parametrize("share", [0, -0.1, 1.01])
def test_ceiling_of_the_loss_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match="max_weight_loss"):
        VerifierPolicy(max_weight_loss=share)


@pytest.mark.parametrize("bits", [0, -1, 21])
def test_floors_are_bits(bits: int) -> None:
    for name in ("min_scale", "min_weight_bits", "min_table_bits"):
        with pytest.raises(ConfigError, match=name):
            VerifierPolicy(**{name: bits})


def test_planner_says_what_default_verifiers_refuse(tmp_path: Path) -> None:
    path = tmp_path / "residual.onnx"
    onnx.save(zoo.residual(), path)
    for scale in (limits.MIN_SCALE - 1, limits.MIN_SCALE):
        options = PlanOptions(scale=scale, layers_per_chunk=1, circuits="native")
        made = make_plan(load_model(path), options)
        told = [notice for notice in made.notices if "refuses this plan by default" in notice]
        assert bool(told) == (scale < limits.MIN_SCALE)
        assert bool(told) == (shortfalls(made.plan, VerifierPolicy()) is not None)
    assert min(AUTO_SCALES) == limits.MIN_SCALE


def digits_plan(digits: Path, scale: int) -> DerivedCircuits:
    return make_plan(load_model(digits / "digits.onnx"), replace(ONE_BIT, scale=scale))


@pytest.fixture
def one_bit_plan(digits: Path) -> DerivedCircuits:
    with pytest.MonkeyPatch.context() as monkeypatch:
        coarse_planner(monkeypatch)
        return digits_plan(digits, 10)


def test_sample_inputs_tell_a_caricature_from_the_model(
    digits: Path, one_bit_plan: DerivedCircuits, tmp_path: Path
) -> None:
    """Several images in one file, one in another; the float model is onnxruntime's on the file."""
    model = load_model(digits / "digits.onnx")
    images = np.load(digits / "test_images.npz")["images"][:24]
    np.save(tmp_path / "images.npy", images.reshape(24, 1, 1, 8, 8))
    files = [tmp_path / "images.npy", digits / "zero.json"]
    fine, coarse = digits_plan(digits, 10), one_bit_plan
    found = SampleInputs(files, min_agreement=1.0, max_error=0.05)(model, fine)
    assert (found.samples, found.out_of_range, found.top1_agreement) == (25, 0, 1.0)
    assert found.max_abs_error is not None and found.mean_abs_error is not None
    assert 0 < found.mean_abs_error < found.max_abs_error < 0.05
    assert "100.00%" in found.describe() and "25 sample inputs" in found.describe()
    off = SampleInputs(files)(model, coarse)
    assert off.top1_agreement is not None and off.top1_agreement < 1
    assert off.max_abs_error is not None and off.max_abs_error > 1
    for demand in (
        {"min_agreement": off.top1_agreement + 0.01},
        {"max_error": off.max_abs_error * 0.99},
    ):
        TALLY.refused_with(
            lambda demand=demand: SampleInputs(files, **demand)(model, coarse),
            "accuracy",
            case=str(demand),
        )
    SampleInputs(files, min_agreement=off.top1_agreement, max_error=off.max_abs_error)(
        model, coarse
    )


def test_sample_inputs_that_the_plan_does_not_admit_are_counted_apart(
    digits: Path, tmp_path: Path
) -> None:
    model = load_model(digits / "digits.onnx")
    np.save(tmp_path / "far.npy", np.full((1, 1, 8, 8), 1e6, dtype=np.float32))
    circuits = digits_plan(digits, 8)
    both = SampleInputs([tmp_path / "far.npy", digits / "zero.json"])(model, circuits)
    assert (both.samples, both.out_of_range, both.top1_agreement) == (2, 1, 1.0)
    assert "1 more are outside the plan's range" in both.describe()
    alone = [tmp_path / "far.npy"]
    none = SampleInputs(alone)(model, circuits)
    assert (none.out_of_range, none.max_abs_error, none.top1_agreement) == (1, None, None)
    assert "all 1 sample inputs are outside" in none.describe()
    for demand in ({"min_agreement": 0.01}, {"max_error": 1e9}):
        TALLY.refused_with(
            lambda demand=demand: SampleInputs(alone, **demand)(model, circuits),
            "accuracy",
            case=f"nothing in range, {demand}",
        )


def test_wrong_sample_inputs_are_wrong_calls(digits: Path, tmp_path: Path) -> None:
    file = digits / "zero.json"
    for make, what in (
        (lambda: SampleInputs([]), "at least one file"),
        (lambda: SampleInputs([tmp_path / "none.npy"]), "no such file"),
        (lambda: SampleInputs([file], min_agreement=0), "min-agreement"),
        (lambda: SampleInputs([file], min_agreement=1.1), "min-agreement"),
        (lambda: SampleInputs([file], max_error=0), "max-sample-error"),
    ):
        with pytest.raises(ConfigError, match=what):
            make()
    np.save(tmp_path / "other.npy", np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(InputError, match="shape"):
        SampleInputs([tmp_path / "other.npy"])(
            load_model(digits / "digits.onnx"), digits_plan(digits, 8)
        )
    trust = TrustRoot(plan_digest="0" * 64)
    with pytest.raises(ConfigError, match="--model"):
        verify_run(LocalStore(tmp_path), RunLayout("p", "r"), trust, measure=SampleInputs([file]))

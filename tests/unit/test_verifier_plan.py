"""What a plan must satisfy: every limit of `verifying.trust`, one step inside and one outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests import zoo
from zkml_ray import PlanOptions
from zkml_ray.chunking.load import load_model
from zkml_ray.chunking.passes.split_output import SplitOutput
from zkml_ray.chunking.rewrite import PASSES
from zkml_ray.circuits.srs_digests import CEREMONY_SHA256
from zkml_ray.errors import ConfigError, VerificationError
from zkml_ray.schema.plan import Plan, SealedPlan, SrsPin, VerifyingKeyPin
from zkml_ray.stages.plan import plan as make_plan
from zkml_ray.verifying.trust import (
    HINTED_REWRITES,
    TrustRoot,
    check_arguments,
    check_pins,
    check_topology,
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path: Path = tmp_path_factory.mktemp("model") / "residual.onnx"
    onnx.save(zoo.residual(), path)
    return make_plan(load_model(path), PlanOptions(layers_per_chunk=1, circuits="native")).plan


@pytest.fixture(scope="module")
def hinted(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """2^11 rows: a table of 2016 entries."""
    path: Path = tmp_path_factory.mktemp("model") / "residual.onnx"
    onnx.save(zoo.residual(), path)
    options = PlanOptions(scale=8, layers_per_chunk=1, circuits="hinted")
    return make_plan(load_model(path), options).plan


def edited(plan: Plan, edit: Callable[[dict[str, Any]], None]) -> Plan:
    document = plan.model_dump(mode="json")
    edit(document)
    return Plan.model_validate_json(json.dumps(document))


def in_every_circuit(**values: object) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        for chunk in document["chunks"]:
            chunk["arguments"].update(values)

    return edit


def test_honest_plan_is_accepted(honest: Plan, hinted: Plan) -> None:
    for plan, kind in ((honest, "native"), (hinted, "hinted")):
        assert {chunk.arguments.kind for chunk in plan.chunks} == {kind}
        check_arguments(plan)
        check_topology(plan)


@pytest.mark.parametrize(
    "values",
    [
        {"lookup_range": [0, 990]},
        {"lookup_range": [0, 992]},
        {"lookup_range": [-1, 991]},
        {"logrows": 9},
        {"logrows": 9, "lookup_range": [0, 479]},  # weights hardly finer than values
        {"logrows": 11},
        {"range_bits": 10},
        {"range_bits": 20},
        {"input_scale": 7},
        {"decomp_legs": 3},
        {"kind": "native"},
    ],
)
def test_arguments_of_hinted_circuits_that_do_not_fit_each_other_are_refused(
    hinted: Plan, values: dict[str, Any]
) -> None:
    with pytest.raises(VerificationError, match="known to be sound") as caught:
        check_arguments(edited(hinted, in_every_circuit(**values)))
    assert caught.value.code == "plan-arguments"


def test_rewrites_for_native_arithmetic_are_refused_with_hinted_circuits(hinted: Plan) -> None:
    assert {SplitOutput.name} == HINTED_REWRITES
    for name in PASSES:
        step = {"name": name, "node": "layer", "parameter": 1}
        plan = edited(hinted, lambda document, step=step: document["rewrites"].append(step))
        if name in HINTED_REWRITES:
            check_arguments(plan)
        else:
            with pytest.raises(VerificationError, match="known to be sound") as caught:
                check_arguments(plan)
            assert caught.value.code == "plan-arguments"


def test_salts_beside_values_are_refused_with_hinted_circuits(hinted: Plan) -> None:
    with pytest.raises(VerificationError, match="salts beside values") as caught:
        check_arguments(edited(hinted, lambda d: d["commitment"].update(salts_apart=False)))
    assert caught.value.code == "plan-arguments"


@pytest.mark.parametrize(
    "values",
    [
        {"param_scale": 1},
        {"param_scale": 20},
        {"scale_rebase_multiplier": 6},
        {"decomp_base": 1 << 14, "decomp_legs": 2},
        {"lookup_range": [-(1 << 26), 1 << 26]},
        {"lookup_range": [-1, 1]},
    ],
)
def test_arguments_within_limits_are_accepted(honest: Plan, values: dict[str, Any]) -> None:
    check_arguments(edited(honest, in_every_circuit(**values)))


@pytest.mark.parametrize(
    "values",
    [
        {"param_scale": 0},
        {"param_scale": 21},
        {"scale_rebase_multiplier": 7},
        {"decomp_legs": 5},
        {"decomp_base": 1024},
        {"decomp_base": 128, "decomp_legs": 2},
        {"decomp_base": 2, "decomp_legs": 16},
        {"decomp_base": 3, "decomp_legs": 16},
        {"decomp_base": 1 << 20, "decomp_legs": 16},
        {"lookup_range": [0, 5]},
        {"lookup_range": [5, -5]},
        {"lookup_range": [-1, 1 << 27]},
    ],
)
def test_arguments_beyond_limits_are_refused(honest: Plan, values: dict[str, Any]) -> None:
    with pytest.raises(VerificationError, match="known to be sound") as caught:
        check_arguments(edited(honest, in_every_circuit(**values)))
    assert caught.value.code == "plan-arguments"


@pytest.mark.parametrize("scale", [0, 21, 40])
def test_input_scale_beyond_limits_is_refused(honest: Plan, scale: int) -> None:
    with pytest.raises(VerificationError) as caught:
        check_arguments(edited(honest, lambda document: document.update(input_scale=scale)))
    assert caught.value.code == "plan-arguments"


@pytest.mark.parametrize("dimensions", [[["b", 1], ["a", 1]], [["a", 1], ["a", 2]]])
def test_dimensions_out_of_order_or_repeated_are_refused(
    honest: Plan, dimensions: list[Any]
) -> None:
    with pytest.raises(VerificationError) as caught:
        check_arguments(edited(honest, lambda document: document.update(dimensions=dimensions)))
    assert caught.value.code == "plan-arguments"


def test_plan_of_too_many_elements_is_refused(honest: Plan) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["boundaries"][0]["layout"]["element_count"] = 1 << 30

    with pytest.raises(VerificationError) as caught:
        check_arguments(edited(honest, edit))
    assert caught.value.code == "plan-arguments"


@pytest.mark.parametrize("base", [1 << 20, 1 << 16])
def test_commitment_that_no_packing_fits_is_refused(honest: Plan, base: int) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["commitment"].update(decomp_base=base, decomp_legs=16)

    with pytest.raises(VerificationError) as caught:
        check_arguments(edited(honest, edit))
    assert caught.value.code in ("plan-arguments", "plan-layout")


def test_dropped_or_repeated_edges_are_refused(honest: Plan) -> None:
    def edits() -> list[Callable[[dict[str, Any]], None]]:
        return [
            lambda d: d["boundaries"][1].update(producer=None),
            lambda d: d["boundaries"][1]["consumers"].append("chunk-000"),
            lambda d: d["boundaries"].append(d["boundaries"][-1]),
            lambda d: d["chunks"][1]["inputs"].append(d["chunks"][1]["inputs"][0]),
            lambda d: d["chunks"][1].update(inputs=[]),
            lambda d: d["chunks"][0]["outputs"].append(d["chunks"][1]["outputs"][0]),
            lambda d: d["chunks"][0]["nodes"].append(d["chunks"][1]["nodes"][0]),
            lambda d: d["chunks"].reverse(),
            lambda d: d.update(model_outputs=["h"]),
            lambda d: d.update(model_outputs=["y", "y"]),
            lambda d: d.update(model_inputs=["nowhere"]),
            lambda d: d.update(model_inputs=["x", "h"]),
        ]

    for edit in edits():
        with pytest.raises(VerificationError) as caught:
            check_topology(edited(honest, edit))
        assert caught.value.code == "plan-topology"


def test_scales_of_boundaries_are_the_inputs_or_above(honest: Plan) -> None:
    """A result that is not rebased at once crosses a cut at a higher scale (docs/adr/0012)."""
    check_topology(edited(honest, lambda d: d["boundaries"][1].update(scale=15)))
    for edit in (
        lambda d: d["boundaries"][1].update(scale=9),
        lambda d: d["boundaries"][0].update(scale=15),
        in_every_circuit(input_scale=11),
    ):
        with pytest.raises(VerificationError) as caught:
            check_topology(edited(honest, edit))
        assert caught.value.code == "plan-topology"


def sealed(plan: Plan, *, logrows: int, sha256: str, trust: str) -> SealedPlan:
    return SealedPlan(
        plan=plan,
        srs=(
            SrsPin.model_validate(
                {
                    "logrows": logrows,
                    "sha256": sha256,
                    "verifier_sha256": "0" * 64,
                    "trust": trust,
                }
            ),
        ),
        verifying_keys=tuple(
            VerifyingKeyPin(chunk=chunk.id, sha256="0" * 64) for chunk in plan.chunks
        ),
    )


def test_srs_is_called_ceremony_exactly_when_its_digest_is(honest: Plan) -> None:
    (logrows,) = {chunk.arguments.logrows for chunk in honest.chunks}
    ceremony = CEREMONY_SHA256[logrows]
    check_pins(sealed(honest, logrows=logrows, sha256=ceremony, trust="ceremony"))
    for sha256, trust in ((ceremony, "insecure"), ("1" * 64, "ceremony")):
        with pytest.raises(VerificationError) as caught:
            check_pins(sealed(honest, logrows=logrows, sha256=sha256, trust=trust))
        assert caught.value.code == "srs-trust"
    # The ceremony's digest of another size is not this size's.
    with pytest.raises(VerificationError) as caught:
        check_pins(
            sealed(honest, logrows=logrows, sha256=CEREMONY_SHA256[logrows + 1], trust="ceremony")
        )
    assert caught.value.code == "srs-trust"
    with pytest.raises(VerificationError) as caught:
        check_pins(
            sealed(
                honest,
                logrows=logrows + 1,
                sha256=CEREMONY_SHA256[logrows + 1],
                trust="ceremony",
            )
        )
    assert caught.value.code == "plan-pins"


def test_trust_root_is_exactly_one() -> None:
    with pytest.raises(ConfigError):
        TrustRoot()
    assert TrustRoot(plan_digest="0" * 64).name == "plan digest"

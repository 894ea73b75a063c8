"""No node test of ONNX is answered wrongly or by a traceback: right, or refused in a line.

All of them take minutes: `make test-onnx`, which prints what became of each operator.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.conformance.onnx_nodes import NodeCase, Result, node_cases, outcome, table
from zkml_ray.stages.plan import CircuitKind

SAMPLE: Final = (
    "test_averagepool_2d_ceil, all inputs",
    "test_averagepool_2d_dilations, all inputs",
    "test_convtranspose_group_2, one input",
    "test_convtranspose_output_shape, one input",
    "test_expand_dim_changed, all inputs",
    "test_gemm_all_attributes, one input",
    "test_maxpool_2d_dilations, all inputs",
    "test_reduce_mean_negative_axes_keepdims_random, all inputs",
    "test_constant_pad_negative_axes, one input",
)
"""In the default tests: an attribute or shape each that the backend reads otherwise."""

RIGHT: Final = 810
"""Cases that are right with native circuits; fewer would be a loss."""

WHOLE: Final = 75
"""Operators that are right in every case, with native circuits."""


@pytest.fixture(scope="module")
def cases() -> list[NodeCase]:
    return list(node_cases())


def test_a_sample_of_node_tests_is_right(cases: list[NodeCase]) -> None:
    by_name = {case.name: case for case in cases}
    results = [outcome(by_name[name], "native") for name in SAMPLE]
    assert [(r.case, r.detail) for r in results if r.outcome != "right"] == []


def test_a_scan_over_batches_is_refused_by_name(cases: list[NodeCase]) -> None:
    (case,) = [case for case in cases if case.name == "test_scan_sum, all inputs"]
    found = outcome(case, "native")
    assert found.outcome == "refused"
    assert "batches" in found.detail
    assert "opset 9" in found.detail


@pytest.mark.slow
@pytest.mark.onnx
@pytest.mark.parametrize("circuits", ["native", "auto"])
def test_every_node_test_is_right_or_refused(
    cases: list[NodeCase], circuits: CircuitKind, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [outcome(case, circuits) for case in cases]
    with capsys.disabled():
        print(f"\nONNX node tests, {circuits} circuits:", *table(results), sep="\n")
    assert [shown(r) for r in results if r.outcome in ("wrong", "traceback")] == []
    if circuits == "native":
        assert sum(r.outcome == "right" for r in results) >= RIGHT
        outcomes: dict[str, set[str]] = {}
        for found in results:
            outcomes.setdefault(found.operator, set()).add(found.outcome)
        assert sum(each == {"right"} for each in outcomes.values()) >= WHOLE
    for found in results:
        assert found.outcome != "refused" or "\n" not in found.detail, shown(found)


def shown(result: Result) -> str:
    return f"{result.case}: {result.outcome}, {result.detail}"

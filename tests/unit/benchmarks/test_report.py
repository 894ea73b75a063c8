"""Summaries, tables and documents made from result files."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.report import ROOT, accuracy_table, blocks, filled
from benchmarks.versus_summary import ratio_table, ratios, summarise, table


def run(total: float, peak_gib: float, *, ours: bool = False, failure: str = "") -> dict[str, Any]:
    def phase(wall_s: float) -> dict[str, float]:
        return {"wall_s": wall_s, "cpu_s": 2 * wall_s, "largest_bytes": 0}

    spent = {"witness": 1.0, "prove": total, "verify": 0.5}
    if not ours:
        spent["prove"] = total - 1.5
    return {
        "failure": failure,
        "phases": {} if failure else {name: phase(wall_s) for name, wall_s in spent.items()},
        "largest_bytes": peak_gib * (1 << 30),
        "facts": {"circuits": 3, "proof_bytes": 4000, "max_error": 0.01, **(READY if ours else {})},
    }


READY = {"ray_start_s": 3.0, "stages": [["plan", 5.0], ["prove", 9.0]]}


SETUP = {"failure": "", "wall_s": 5.0, "cpu_s": 9.0, "largest_bytes": 1 << 30}


def measured(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"setup": SETUP, "runs": list(runs)}


VARIANTS = {
    "a": measured(run(100, 8), run(140, 8), run(120, 8)),
    "b": measured(run(60, 4)),
    "d2": measured(run(22, 1, ours=True), run(18, 1, ours=True), run(20, 1, ours=True)),
}


def test_totals_are_medians_of_what_each_side_does_from_input_to_verified_proof():
    summary = summarise(VARIANTS)
    assert summary["a"]["total_s"] == 120
    assert summary["a"]["total_cpu_s"] == 240
    assert summary["d2"]["total_s"] == 20  # the call; the outsider's verification is not in it
    assert summary["d2"]["verify_wall_s"] == 0.5


def test_ratios_say_how_many_times_better_ours_is():
    assert ratios(summarise(VARIANTS), "d2") == {
        "speedup_vs_default": 6,
        "speedup_vs_tuned": 3,
        "running_speedup_vs_default": 10,
        "running_speedup_vs_tuned": 5,
        "cpu_ratio_vs_default": 6,
        "memory_ratio_vs_default": 8,
    }


def test_a_ratio_to_what_was_not_measured_is_none():
    found = ratios(summarise({"d2": VARIANTS["d2"]}), "d2")
    assert set(found.values()) == {None}


def test_failed_runs_count_nowhere_and_a_failed_variant_shows_why():
    variants = {**VARIANTS, "a": measured(run(0, 0, failure="stopped at 21.0 GiB of memory"))}
    summary = summarise(variants)
    assert "a" not in summary
    result = {"title": "M", "variants": variants, "summary": summary}
    line = next(line for line in table([result]) if "default" in line)
    assert "stopped at 21.0 GiB of memory" in line


def test_a_variant_whose_setup_failed_shows_why():
    failed = {"setup": {**SETUP, "failure": "stopped after 7200 s"}, "runs": []}
    result = {"title": "M", "variants": {"a": failed}, "summary": {}}
    assert "stopped after 7200 s" in table([result])[2]


def test_every_row_of_a_table_has_the_header_s_columns():
    summary = summarise(VARIANTS)
    result = {
        "title": "M",
        "variants": VARIANTS,
        "summary": summary,
        "ratios": {"d2": ratios(summary, "d2")},
    }
    for lines in (table([result]), ratio_table([result])):
        assert len({line.count("|") for line in lines}) == 1
    assert "6.00x" in ratio_table([result])[2]


def test_accuracy_is_shown_in_points():
    result = {
        "title": "M",
        "images": 400,
        "float_top1": 0.98,
        "quantised_top1": 0.9775,
        "agreement": 0.9975,
        "max_abs_error": 0.02,
    }
    assert "-0.25 points" in accuracy_table([result])[2]


def test_marked_blocks_are_replaced_and_the_rest_is_kept():
    document = "# A\n<!-- x:begin -->\nold\nlines\n<!-- x:end -->\ntail\n"
    once = filled(document, {"x": ["| new |"]})
    assert once == "# A\n<!-- x:begin -->\n| new |\n<!-- x:end -->\ntail\n"
    assert filled(once, {"x": ["| new |"]}) == once


def test_a_block_that_nothing_makes_is_an_error():
    with pytest.raises(ValueError, match="'y'"):
        filled("<!-- y:begin -->\n<!-- y:end -->", {"x": []})


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])
def test_documents_show_the_stored_results(name: str):
    document = (ROOT / name).read_text()
    assert filled(document, blocks(ROOT / "benchmarks" / "results")) == document

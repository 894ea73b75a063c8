"""Summaries, tables and documents made from result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.plots import versus_plot
from benchmarks.report import ROOT, accuracy_table, blocks, filled
from benchmarks.stock import Piece, mismatch
from benchmarks.versus_summary import (
    ratio_table,
    ratios,
    stopped,
    stopped_words,
    summarise,
    swapped,
    table,
)


def run(
    total: float, peak_gib: float, *, ours: bool = False, failure: str = "", stopped: str = ""
) -> dict[str, Any]:
    def phase(wall_s: float) -> dict[str, float]:
        return {"wall_s": wall_s, "cpu_s": 2 * wall_s, "user_s": 1.5 * wall_s, "largest_bytes": 0}

    spent = {"witness": 1.0, "prove": total, "verify": 0.5}
    if not ours:
        spent["prove"] = total - 1.5
    return {
        "failure": failure,
        "stopped": stopped,
        "begun_s": total,
        "total_bytes": 1.25 * peak_gib * (1 << 30),
        "phases": {} if failure else {name: phase(wall_s) for name, wall_s in spent.items()},
        "largest_bytes": peak_gib * (1 << 30),
        "facts": {"circuits": 3, "proof_bytes": 4000, "max_error": 0.01},
    }


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
    found = ratios(summarise(VARIANTS), "d2", {})
    assert {name: value for name, value in found.items() if not name.endswith("_at_least")} == {
        "speedup_vs_default": 6,
        "speedup_vs_tuned": 3,
        "cpu_ratio_vs_default": 6,
        "memory_ratio_vs_default": 8,
    }


def test_a_ratio_to_what_was_not_measured_is_none():
    found = ratios(summarise({"d2": VARIANTS["d2"]}), "d2", {})
    assert set(found.values()) == {None}


def test_failed_runs_count_nowhere_and_a_failed_variant_shows_why():
    variants = {**VARIANTS, "a": measured(run(0, 0, failure="stopped at 21.0 GiB of memory"))}
    summary = summarise(variants)
    assert "a" not in summary
    result = {"title": "M", "variants": variants, "summary": summary}
    line = next(line for line in table([result]) if "default" in line)
    assert "stopped at 21.0 GiB of memory" in line


def ended_by_memory() -> dict[str, Any]:
    halves = [run(s, 16, failure="stopped at 20.0 GiB", stopped="memory") for s in (70, 80)]
    variants = {**VARIANTS, "a": measured(*halves)}
    summary, ended = summarise(variants), stopped(variants)
    return {
        "title": "M",
        "variants": variants,
        "summary": summary,
        "ratios": {"d2": ratios(summary, "d2", ended)},
    }


def test_a_variant_that_memory_stopped_bounds_the_ratios_from_below():
    found = ended_by_memory()["ratios"]["d2"]
    assert found["speedup_vs_default"] is None
    assert found["speedup_vs_default_at_least"] == 4
    assert found["memory_ratio_vs_default"] is None
    assert found["memory_ratio_vs_default_at_least"] == 16
    assert found["cpu_ratio_vs_default"] is None
    assert (found["speedup_vs_tuned"], found["speedup_vs_tuned_at_least"]) == (3, None)


def test_tables_say_that_a_variant_is_not_possible_and_show_bounds():
    result = ended_by_memory()
    line = next(line for line in table([result]) if "default" in line)
    assert "not possible in 20.0 GiB" in line
    assert "> 80.0 s" in line
    assert "> 16.00 GiB" in line
    line = ratio_table([result])[2]
    assert "> 4.00x | 3.00x | > 16.00x" in line


def test_one_complete_run_is_a_measurement_whatever_stopped_another():
    runs = (run(100, 8), run(30, 16, failure="stopped at 20.0 GiB", stopped="memory"))
    variants = {**VARIANTS, "a": measured(*runs)}
    assert stopped(variants) == {}
    assert summarise(variants)["a"]["total_s"] == 100


def test_a_swapping_variant_bounds_time_by_its_user_time_and_memory_exactly():
    one = {**run(120, 8), "swapped_bytes": 2 << 30}
    variants = {**VARIANTS, "a": measured(one)}
    summary, ended = summarise(variants), swapped(variants, cores=2)
    found = ratios(summary, "d2", ended)
    assert found["speedup_vs_default"] is None
    assert found["speedup_vs_default_at_least"] == 120 * 1.5 / 2 / 20
    assert (found["memory_ratio_vs_default"], found["memory_ratio_vs_default_at_least"]) == (
        8,
        None,
    )
    result = {"title": "LeNet-5", "variants": variants, "summary": summary, "ratios": {}}
    line = next(line for line in table([result]) if "default" in line)
    assert "default, swapping" in line
    assert "120 s" in line


def test_a_little_swap_is_no_matter():
    variants = {"a": measured({**run(120, 8), "swapped_bytes": 1 << 20})}
    assert swapped(variants, cores=2) == {}


def test_keys_that_memory_stopped_bound_no_proving_time():
    setup = {**SETUP, "failure": "stopped at 20.0 GiB", "stopped": "memory", "begun_s": 300.0}
    variants = {**VARIANTS, "a": {"setup": {**setup, "total_bytes": 20 << 30}, "runs": []}}
    ended = stopped(variants)
    assert stopped_words(ended["a"]) == "not possible in 20.0 GiB (its keys)"
    assert ratios(summarise(variants), "d2", ended)["speedup_vs_default_at_least"] is None


def test_a_stopped_variant_is_drawn_hatched(tmp_path: Path):
    plot = tmp_path / "versus.svg"
    versus_plot([ended_by_memory()], plot)
    drawn = plot.read_text()
    assert "not possible in 20.0 GiB" in drawn
    assert drawn.count("<pattern") == 1


def test_a_split_whose_parts_disagree_about_a_scale_names_it():
    pieces = [Piece(inputs=("x",), outputs=("h",)), Piece(inputs=("x", "h"), outputs=("y",))]
    made = [
        {"model_input_scales": [13], "model_output_scales": [26]},
        {"model_input_scales": [13, 13], "model_output_scales": [13]},
    ]
    assert mismatch(pieces, made) == "part 0 gives h at scale 26, part 1 reads it at scale 13"
    made[0]["model_output_scales"] = [13]
    assert mismatch(pieces, made) == ""


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
        "ratios": {"d2": ratios(summary, "d2", {})},
    }
    for lines in (table([result]), ratio_table([result])):
        assert len({line.count("|") for line in lines}) == 1
    assert "6.00x" in ratio_table([result])[2]


def test_accuracy_is_shown_beside_stock_and_in_points():
    ours = {"mean_abs_error": 0.00046, "max_abs_error": 0.02, "top1": 0.9775, "agreement": 0.9975}
    result = {
        "title": "M",
        "inputs": 400,
        "float_top1": 0.98,
        "ours": ours,
        "stock": {"mean_abs_error": 0.00063, "max_abs_error": 0.03, "top1": 0.98},
    }
    line = accuracy_table([result])[2]
    assert "| 0.00046 | 0.00063 | 0.0200 | 0.0300 |" in line
    assert "-0.25 points" in line
    del result["float_top1"]
    assert accuracy_table([result])[2].count("-") == 4


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

"""Pure parts of big.py, accuracy.py and the search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import compare, top1
from benchmarks.big import covered_s, extrapolated, plan_lines
from benchmarks.steps import FIRST_METHOD, OPTIONS, merged_options, read_record, write_record
from benchmarks.tuning import (
    Arguments,
    Candidate,
    columns_needed,
    estimated_cost,
    in_order,
    smallest_logrows,
)

SETTINGS = {
    "total_assignments": 100_000,
    "einsum_params": {"total_einsum_col_size": 5_000},
    "required_lookups": [],
    "required_range_checks": [[-1, 1], [0, 16383]],
    "model_instance_shapes": [[1, 10]],
}


def test_covered_time_counts_overlaps_once_and_gaps_not_at_all():
    assert covered_s([(0, 4), (1, 2), (3, 6), (10, 11)]) == 7
    assert covered_s([]) == 0


def test_all_layers_measured_means_nothing_is_extrapolated():
    facts = dict.fromkeys(
        ("chunks", "setup_worker_s", "prove_worker_s", "busy_wall_s", "proof_bytes"), 10
    )
    assert extrapolated(facts, 6) is None
    found = extrapolated(facts, 2)
    assert found is not None
    assert found["prove_worker_s"] == 30
    assert (found["from_layers"], found["layers"]) == (2, 6)


def test_columns_come_in_whole_blocks():
    # 2^14 rows less blinding hold 16,376; two columns 32,752; 100,000 slots take four such blocks.
    assert columns_needed(SETTINGS, 2, 14) == (8, 2)


def test_logrows_cannot_fall_below_the_widest_table():
    assert smallest_logrows(SETTINGS, 0) == 15
    with_lookup = {**SETTINGS, "required_lookups": ["Erf"]}
    assert smallest_logrows(with_lookup, 100_000) == 17


def test_lookup_tables_and_unused_rows_cost():
    plain = estimated_cost(SETTINGS, 2, 14)
    assert estimated_cost({**SETTINGS, "required_lookups": ["Erf"]}, 2, 14) > plain
    assert estimated_cost(SETTINGS, 2, 18) > plain  # one block of 2^18 rows, mostly empty


def candidate(logrows: int, cost: float, memory_bytes: int) -> Candidate:
    arguments = Arguments(
        input_scale=7,
        param_scale=7,
        scale_rebase_multiplier=1,
        decomp_base=128,
        decomp_legs=4,
        num_inner_cols=2,
        logrows=logrows,
    )
    return Candidate(arguments=arguments, cost=cost, memory_bytes=memory_bytes)


def test_candidates_that_do_not_fit_the_memory_come_last_the_smallest_first():
    found = [candidate(12, 1.0, 90), candidate(13, 2.0, 80), candidate(14, 4.0, 40)]
    found.append(candidate(15, 3.0, 50))
    order = [one.arguments.logrows for one in in_order(found, 60)]
    assert order == [15, 14, 13, 12]
    assert [one.arguments.logrows for one in in_order(found, None)] == [12, 13, 15, 14]


def test_options_of_the_command_line_come_over_the_model_s_scale_and_that_over_the_default():
    assert merged_options("{}") == OPTIONS
    found = merged_options('{"scale": 9, "workers": 3}')
    assert found == {**OPTIONS, "scale": 9, "workers": 3}


def test_keys_made_another_way_are_not_taken(tmp_path: Path):
    made = {"settings": {"facts": {}}, "setup": {"failure": ""}}
    assert read_record(tmp_path, "new") is None
    write_record(tmp_path, made, "new")
    assert read_record(tmp_path, "new") == made
    assert read_record(tmp_path, "newer") is None
    (tmp_path / "record.json").write_text(json.dumps(made))  # of a time that named no method
    assert read_record(tmp_path, FIRST_METHOD) == made
    assert read_record(tmp_path, "new") is None


def test_a_plan_s_lines_name_every_chunk_and_the_sums():
    chunk = {"chunk": "chunk-000", "column_blocks": 3, "prove_s": 12.5, "peak_bytes": 1 << 30}
    facts = {
        "chunks": [chunk],
        "kinds": ["hinted"],
        "logrows": [14],
        "columns": [5],
        "rows": [40_000],
        "operators": ["MatMul Add"],
        "makespan_s": {"1": 13.0, "2": 13.0},
        "cells": 200_000,
        "boundary_elements": 3_072,
        "proof_bytes": 10_000,
        "threads": 1,
        "prove_worker_s": 12.5,
        "setup_worker_s": 9.0,
        "peak_bytes": 1 << 30,
    }
    lines = plan_lines(facts)
    assert lines[0].startswith("chunk-000  hinted  2^14 x 5 x 3 blocks    200,000 cells")
    assert "1 chunks, 200,000 cells" in lines[1]


def test_accuracy_compares_classes_and_names_the_inputs_that_differ():
    floats = np.array([[1.0, 0.0], [0.2, 0.8], [0.6, 0.4]])
    quantised = np.array([[0.9, 0.0], [0.3, 0.7], [0.4, 0.5]])
    labels = np.array([0, 1, 1])
    found = compare(floats, quantised, labels)
    assert top1(floats, labels) == pytest.approx(2 / 3)
    assert found["top1"] == 1.0
    assert found["disagreeing_inputs"] == [2]
    assert found["max_abs_error"] == pytest.approx(0.2)
    assert compare(floats, quantised, None).keys() == {"max_abs_error", "mean_abs_error"}

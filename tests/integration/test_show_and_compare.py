"""Stored runs in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.command import run_here
from tests.integration.report_runs import failed_run
from zkml_ray.api import Run


def shown(run: Run, *arguments: str) -> tuple[str, ...]:
    return (*arguments, "--project", run.project, "--store", run.store)


def test_show_tells_every_chunk_and_boundary(digits_run: Run) -> None:
    done = run_here(*shown(digits_run, "show", digits_run.run_id))
    assert done.code == 0
    for chunk in digits_run.plan.chunks:
        assert chunk.id in done.stdout
    for entry in digits_run.manifest.boundaries:
        assert entry.boundary in done.stdout and f"{entry.commitment[:12]}..." in done.stdout
    assert "Nothing was verified" in done.stdout
    assert max(map(len, done.stdout.splitlines()[6:])) <= 120


def test_show_json_is_the_manifests(digits_run: Run) -> None:
    found = run_here(*shown(digits_run, "show", digits_run.run_id, "--json")).json
    manifest = digits_run.manifest
    assert found["state"] == "complete" and found["plan_digest"] == digits_run.plan_digest
    assert found["chunks"] == [record.model_dump(mode="json") for record in manifest.chunks]
    assert [(entry["boundary"], entry["root"]) for entry in found["boundaries"]] == [
        (entry.boundary, entry.commitment) for entry in manifest.boundaries
    ]
    opened = {entry.boundary for entry in manifest.statement.revealed}
    assert {e["boundary"] for e in found["boundaries"] if e["revealed"]} == opened
    told = found["figures"]
    assert told["prove_s"] == pytest.approx(sum(r.prove.seconds for r in manifest.chunks))
    assert told["peak_bytes"] == max(record.peak_rss_bytes for record in manifest.chunks)


def test_show_of_a_failed_run_says_what_failed(models: Path, tmp_path: Path) -> None:
    store, run_id = failed_run(models / "mlp.onnx", tmp_path)
    done = run_here("show", run_id, "--store", store)
    assert done.code == 0
    assert "FAILED: a value is outside the range" in done.stdout
    assert "0 of 3 chunks proved" in done.stdout and "not proved" in done.stdout


def test_compare_of_two_models_says_so_and_gives_ratios(digits_run: Run, mlp_run: Run) -> None:
    arguments = shown(digits_run, "compare", digits_run.run_id, mlp_run.run_id)
    done = run_here(*arguments)
    assert done.code == 0 and "DIFFERENT models, different plans." in done.stdout
    found = run_here(*arguments, "--json").json
    chunks = next(row for row in found["compared"] if row["name"] == "chunks")
    counts = len(digits_run.plan.chunks), len(mlp_run.plan.chunks)
    assert (chunks["first"], chunks["second"]) == tuple(map(str, counts))
    assert chunks["ratio"] == counts[1] / counts[0]


def test_compare_of_a_run_with_itself_finds_no_difference(digits_run: Run) -> None:
    run = digits_run.run_id
    found = run_here(*shown(digits_run, "compare", run, run, "--json")).json
    assert found["shared"][0] == "The same model, the same plan."
    assert all(line.endswith("the same.") for line in found["shared"][1:])
    assert {row["ratio"] for row in found["compared"]} <= {1.0, None}


@pytest.mark.parametrize("command", [("show", "nothing"), ("compare", "nothing", "digits")])
def test_run_that_is_not_there_is_one_line(digits_run: Run, command: tuple[str, ...]) -> None:
    done = run_here(*shown(digits_run, *command))
    assert done.code == 2 and len(done.errors) == 1 and "no run nothing" in done.errors[0]


def test_run_is_one_line_to_a_terminal_and_a_table_to_a_notebook(digits_run: Run) -> None:
    line = repr(digits_run)
    assert "\n" not in line and line.startswith("<Run digits: verified, 4 chunks on ")
    assert "largest at 7 of 10" in line and "SRS insecure" in line and len(line) < 200
    markup = digits_run._repr_html_()
    assert "VERIFIED" in markup and digits_run.plan_digest in markup
    assert markup.count("data:image/png;base64,") == 1, "the digit"
    refused = replace(digits_run, verified=False)
    assert "NOT verified" in repr(refused) and "NOT VERIFIED" in refused._repr_html_()


def test_notebooks_table_escapes_names(digits_run: Run) -> None:
    name = "<script>alert(1)</script>"
    manifest = digits_run.manifest.model_copy(update={"model_file": name})
    values = next(iter(digits_run.outputs.values()))
    markup = replace(digits_run, manifest=manifest, outputs={name: values})._repr_html_()
    assert "<script" not in markup and markup.count("&lt;script&gt;") == 2

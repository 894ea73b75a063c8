"""The command line, end to end: exit codes, streams, and runs that were tampered with."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command import Outcome, run_here, run_process
from zkml_ray.api import Run

pytestmark = pytest.mark.ray

COMMANDS = ["prove", "verify", "plan", "runs", "demo"]
RUN = "projects/default/runs/first"
CHUNKS = ["chunk-000", "chunk-001", "chunk-002"]
BY_LAYER = ["--layers-per-chunk", "1", "--scale", "8"]


@pytest.fixture(scope="module")
def proved(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A fresh store, and what `prove --json` said while it filled it."""
    store = tmp_path_factory.mktemp("fresh") / "store"
    arguments = [*BY_LAYER, "--store", store, "--run", "first", "--json"]
    return store, run_process("prove", models / "mlp.onnx", *arguments)


@pytest.fixture
def copy(proved: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of the store, to tamper with."""
    return shutil.copytree(proved[0], tmp_path / "store")


def verify_here(store: Path, models: Path, *more: str) -> Outcome:
    arguments = ["--store", store, "--model", models / "mlp.onnx", *more]
    return run_here("verify", "first", *arguments)


def proof_path(store: Path, chunk: str) -> Path:
    return store / RUN / "proofs" / f"{chunk}.json"


def edit_manifest(store: Path, edit: Any) -> None:
    path = store / RUN / "manifest.json"
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document, separators=(",", ":"), sort_keys=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_names_its_options_and_exits_0(command: str) -> None:
    found = run_here(command, "--help")
    assert found.code == 0
    assert found.stderr == ""
    assert f"Usage: zkml-ray {command}" in found.stdout
    assert "--store" in found.stdout or command == "plan"


def test_help_lists_every_command() -> None:
    found = run_process("--help")
    assert (found.code, found.stderr) == (0, "")
    assert all(re.search(rf"^│ {command} ", found.stdout, re.MULTILINE) for command in COMMANDS)


def test_version_is_the_packages(repository: Path) -> None:
    found = run_here("--version")
    assert found.code == 0
    assert f'version = "{found.stdout.split()[1]}"' in (repository / "pyproject.toml").read_text()


def test_no_arguments_show_the_usage_and_exit_2() -> None:
    found = run_process()
    assert (found.code, found.stdout) == (2, "")
    assert "Usage: zkml-ray" in found.stderr
    assert found.errors == []


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["prove"], ["prove", "m.onnx", "--workers", "two"], ["runs", "--bogus"]],
    ids=" ".join,
)
def test_bad_usage_is_one_line_and_exits_2(arguments: list[str]) -> None:
    found = run_here(*arguments)
    assert (found.code, found.stdout) == (2, "")
    assert len(found.stderr.splitlines()) == len(found.errors) == 1


def test_prove_with_json_writes_one_object_and_progress_elsewhere(
    proved: tuple[Path, Outcome],
) -> None:
    store, found = proved
    assert found.code == 0, found.stderr
    document = found.json
    assert document["verified"] is True
    assert (document["run_id"], document["project"]) == ("first", "default")
    assert document["store"] == f"file://{store}"
    assert document["srs_trust"] == "insecure"
    assert len(document["outputs"]["y"][0]) == 4
    assert [record["chunk"] for record in document["manifest"]["chunks"]] == CHUNKS
    for chunk in CHUNKS:
        assert f"{chunk}: verified" in found.stderr
    assert "warning: the SRS" in found.stderr
    assert "\x1b" not in found.stderr


def test_manifest_printed_by_prove_is_the_stored_one(proved: tuple[Path, Outcome]) -> None:
    store, found = proved
    assert json.loads((store / RUN / "manifest.json").read_bytes()) == found.json["manifest"]


def test_verify_in_a_fresh_process_given_store_and_model_alone_accepts(
    proved: tuple[Path, Outcome], models: Path, tmp_path: Path
) -> None:
    arguments = ["--store", proved[0], "--model", models / "mlp.onnx", "--allow-insecure-srs"]
    found = run_process(
        "verify", "first", *arguments, "--json", ZKML_RAY_CACHE=str(tmp_path / "empty cache")
    )
    assert found.code == 0, found.stderr
    assert found.stderr == ""
    assert found.json["ok"] is True
    assert found.json["plan_digest"] == proved[1].json["plan_digest"]
    assert found.json["revealed"]["y"] == proved[1].json["outputs"]["y"][0]


def test_verify_against_the_plan_digest_accepts(proved: tuple[Path, Outcome]) -> None:
    digest = proved[1].json["plan_digest"]
    found = run_here(
        "verify", "first", "--store", proved[0], "--plan-digest", digest, "--allow-insecure-srs"
    )
    assert found.code == 0
    assert found.stdout.startswith("VERIFIED run first")
    assert "INSECURE" in found.stdout


def test_verify_without_leave_for_an_insecure_srs_refuses(
    proved: tuple[Path, Outcome], models: Path
) -> None:
    found = run_process("verify", "first", "--store", proved[0], "--model", models / "mlp.onnx")
    assert (found.code, found.stdout) == (1, "")
    assert len(found.errors) == 1
    assert "--allow-insecure-srs" in found.errors[0]


def test_verify_with_another_model_refuses(proved: tuple[Path, Outcome], models: Path) -> None:
    arguments = ["--store", proved[0], "--model", models / "residual.onnx"]
    found = run_here("verify", "first", *arguments, "--allow-insecure-srs")
    assert found.code == 1
    assert "another model" in found.errors[0]


def test_verify_with_another_plan_digest_refuses(proved: tuple[Path, Outcome]) -> None:
    found = run_here(
        "verify", "first", "--store", proved[0], "--plan-digest", "0" * 64, "--allow-insecure-srs"
    )
    assert found.code == 1
    assert "plan" in found.errors[0]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
def test_verify_proof_file_with_one_byte_changed_refuses_and_names_the_chunk(
    copy: Path, models: Path, chunk: str, place: float
) -> None:
    path = proof_path(copy, chunk)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    found = verify_here(copy, models, "--allow-insecure-srs")
    assert (found.code, found.stdout) == (1, "")
    assert len(found.errors) == 1
    assert chunk in found.errors[0]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_verify_proof_with_one_byte_changed_and_its_reference_with_it_refuses_and_names_the_chunk(
    copy: Path, models: Path, chunk: str
) -> None:
    path = proof_path(copy, chunk)
    document = json.loads(path.read_bytes())
    proof = bytearray.fromhex(document["proof"])
    proof[len(proof) // 2] ^= 1
    document["proof"] = proof.hex()
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    path.write_bytes(data)

    def refer(manifest: Any) -> None:
        reference = manifest["artifacts"][f"proofs/{chunk}.json"]
        reference["sha256"], reference["size_bytes"] = hashlib.sha256(data).hexdigest(), len(data)

    edit_manifest(copy, refer)
    found = verify_here(copy, models, "--allow-insecure-srs")
    assert found.code == 1
    assert chunk in found.errors[0]
    assert "does not verify" in found.errors[0]


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 2), (0, 2)])
def test_verify_two_chunks_proof_files_swapped_refuses_and_names_one(
    copy: Path, models: Path, a: int, b: int
) -> None:
    first, second = proof_path(copy, CHUNKS[a]), proof_path(copy, CHUNKS[b])
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    found = verify_here(copy, models, "--allow-insecure-srs", "--json")
    assert found.code == 1
    assert CHUNKS[a] in found.errors[0]
    assert found.json["ok"] is False


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 2), (0, 2)])
def test_verify_two_chunks_proofs_swapped_in_the_manifest_refuses_and_names_one(
    copy: Path, models: Path, a: int, b: int
) -> None:
    def swap(manifest: Any) -> None:
        artifacts = manifest["artifacts"]
        x, y = f"proofs/{CHUNKS[a]}.json", f"proofs/{CHUNKS[b]}.json"
        artifacts[x], artifacts[y] = artifacts[y], artifacts[x]

    edit_manifest(copy, swap)
    found = verify_here(copy, models, "--allow-insecure-srs", "--json")
    assert found.code == 1
    assert CHUNKS[a] in found.errors[0]
    assert found.json["ok"] is False
    assert found.json["subject"] == CHUNKS[a]


def test_verify_changed_proof_in_a_fresh_process_refuses_and_names_the_chunk(
    copy: Path, models: Path
) -> None:
    path = proof_path(copy, "chunk-001")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    arguments = ["--store", copy, "--model", models / "mlp.onnx", "--allow-insecure-srs"]
    found = run_process("verify", "first", *arguments, "--json")
    assert found.code == 1
    assert found.json["ok"] is False
    assert "chunk-001" in found.json["message"]
    assert "Traceback" not in found.stderr


def test_verify_with_a_proof_missing_refuses_and_names_the_chunk(copy: Path, models: Path) -> None:
    proof_path(copy, "chunk-002").unlink()
    found = verify_here(copy, models, "--allow-insecure-srs")
    assert found.code == 1
    assert "chunk-002" in found.errors[0]


def test_second_run_with_the_same_id_exits_2_and_the_first_still_verifies(
    proved: tuple[Path, Outcome], models: Path
) -> None:
    store = proved[0]
    before = (store / RUN / "manifest.json").read_bytes()
    found = run_process("prove", models / "mlp.onnx", "--store", store, "--run", "first")
    assert (found.code, found.stdout) == (2, "")
    assert len(found.errors) == 1
    assert "first" in found.errors[0]
    assert (store / RUN / "manifest.json").read_bytes() == before
    assert verify_here(store, models, "--allow-insecure-srs").code == 0


def test_runs_lists_the_run(proved: tuple[Path, Outcome]) -> None:
    found = run_here("runs", "--store", proved[0], "--json")
    assert found.code == 0
    (row,) = found.json["runs"]
    assert (row["run_id"], row["chunks"], row["model"]) == ("first", 3, "mlp.onnx")
    shown = run_here("runs", "--store", proved[0])
    assert shown.code == 0
    assert shown.stdout.startswith("first ")


def test_runs_of_an_empty_store_says_so_and_exits_0(tmp_path: Path) -> None:
    found = run_here("runs", "--store", tmp_path)
    assert found.code == 0
    assert "no runs" in found.stdout


def test_plan_with_json_is_one_object_whose_digest_is_the_plans(models: Path) -> None:
    found = run_here("plan", models / "residual.onnx", *BY_LAYER, "--json")
    assert (found.code, found.stderr) == (0, "")
    document = found.json
    assert [chunk["id"] for chunk in document["plan"]["chunks"]] == [*CHUNKS, "chunk-003"]
    assert document == run_here("plan", models / "residual.onnx", *BY_LAYER, "--json").json


def test_plan_shows_chunks_boundaries_and_predictions(models: Path) -> None:
    found = run_here("plan", models / "mlp.onnx", "--layers-per-chunk", "2", "--passes", "none")
    assert found.code == 0
    for text in ("chunk-000", "chunk-001", "Gemm Relu", "boundaries", "workers"):
        assert text in found.stdout
    assert "chunk-002" not in found.stdout


def test_prove_without_json_shows_a_table_and_the_answer(
    ray_cluster: None, mlp_run: Run, models: Path, tmp_path: Path
) -> None:
    found = run_here("prove", models / "mlp.onnx", *BY_LAYER, "--store", tmp_path, "-w", "1")
    assert found.code == 0, found.stderr
    for text in (*CHUNKS, "worker-0", "this is proved", "as does the float model", "INSECURE"):
        assert text in found.stdout
    assert mlp_run.plan_digest in found.stdout


@pytest.mark.slow
def test_demo_in_a_fresh_process_proves_and_verifies_a_digit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zkml_ray.command_line.cli", "demo", "--digit", "seven"]
    found = subprocess.run(
        [*command, "--store", "store"], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert "The model says 7" in found.stdout
    assert "VERIFIED run" in found.stdout
    for once in ("INSECURE", "Plan digest"):
        assert (found.stdout + found.stderr).count(once) == 1
    commands = found.stdout.partition("Next, try:")[2].split("\n  ")[1:]
    assert len(commands) >= 6
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        if "--open" in command:  # needs a browser
            continue
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, (command, done.stderr)
        assert "no runs" not in done.stdout


@pytest.mark.slow
def test_simple_distributed_example_proves_and_verifies_each_layer(
    repository: Path, tmp_path: Path
) -> None:
    command = ["examples/simple_distributed.py", "--layers", "4", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, *command, "--store", tmp_path],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "verified True" in done.stdout
    assert done.stdout.count("proved in") == 4

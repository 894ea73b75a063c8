"""Clean-room verification: a fresh process, an empty cache, no Ray, the store and a trust root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3.server import BUCKET, KEY_ID, SECRET, rclone_server, running
from zkml_ray.api import Run

pytestmark = pytest.mark.ray

UNWANTED = ("ray", "onnxruntime", "boto3", "zkml_ray.stages", "zkml_ray.coordinator")
PROGRAM = f"""
import sys
from zkml_ray.cli import main
try:
    main()
finally:
    loaded = [n for n in {UNWANTED!r} if n in sys.modules]
    print("LOADED", loaded, file=sys.stderr)
"""


@pytest.mark.parametrize("root", ["model", "plan-digest"])
def test_verify_in_a_clean_room_gives_the_same_verdict_without_ray_or_onnxruntime(
    root: str, mlp_run: Run, models: Path, tmp_path: Path
) -> None:
    trust = {
        "model": ["--model", str(models / "mlp.onnx")],
        "plan-digest": ["--plan-digest", mlp_run.plan_digest],
    }[root]
    environment = {**os.environ, "ZKML_RAY_CACHE": str(tmp_path / "cache")}
    environment.pop("RAY_ADDRESS", None)
    command = ["verify", mlp_run.run_id, "--store", mlp_run.store, "--project", mlp_run.project]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, *trust, "--allow-insecure-srs", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["ok"]
    assert verdict["plan_digest"] == mlp_run.plan_digest
    assert verdict["statement"] == mlp_run.verdict.statement
    shown = {name: tuple(values) for name, values in verdict["revealed"].items()}
    assert shown == dict(mlp_run.verdict.revealed)


@pytest.mark.slow
@pytest.mark.s3
def test_verify_in_a_new_environment_from_a_read_only_s3_store_gives_the_same_verdict(
    mlp_run: Run, models: Path, repository: Path, tmp_path: Path
) -> None:
    """Nothing of this machine but its package installer: own venv, own cache, a store it cannot
    write to."""
    environment_folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment_folder)], check=True)
    python = environment_folder / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "-c", "constraints.txt", str(repository)]
    subprocess.run([str(python), *install], check=True, cwd=repository)
    served = tmp_path / "served"
    shutil.copytree(mlp_run.store.removeprefix("file://"), served / BUCKET / "prefix")
    with running(rclone_server(served, read_only=True)) as server:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ZKML_RAY_CACHE": str(tmp_path / "cache"),
            "AWS_ENDPOINT_URL_S3": server.endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        command = [str(environment_folder / "bin" / "zkml-ray"), "verify", mlp_run.run_id]
        where = ["--store", f"s3://{BUCKET}/prefix", "--project", mlp_run.project]
        trust = ["--model", str(models / "mlp.onnx"), "--allow-insecure-srs", "--json"]
        done = subprocess.run(
            [*command, *where, *trust],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["plan_digest"] == mlp_run.plan_digest
    assert verdict["statement"] == mlp_run.verdict.statement

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
from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.verifying.bundle import write_bundle

pytestmark = pytest.mark.ray

UNWANTED = (
    "ray",
    "onnxruntime",
    "boto3",
    "botocore",
    "zkml_ray.stages",
    "zkml_ray.run.coordinator",
)

# What the base installation lacks cannot be imported, whatever this environment has.
PROGRAM = f"""
import importlib.abc, runpy, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "onnxruntime", "boto3", "botocore"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
module, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    watched = [*{UNWANTED!r}, "onnx"]
    print("LOADED", *[n for n in watched if n in sys.modules], file=sys.stderr)
"""

PROGRAMS = {
    "zkml-ray verify": ["zkml_ray.command_line.cli", "verify"],
    "verifier": ["zkml_ray.verifier"],
}


def isolated(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the package where neither Ray, onnxruntime nor boto3 is installed."""
    environment = {**os.environ, "ZKML_RAY_CACHE": str(folder / "cache")}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def bundle(mlp_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "mlp.zip"
    store = LocalStore(mlp_run.store.removeprefix("file://"))
    write_bundle(store, RunLayout(mlp_run.project, mlp_run.run_id), path)
    return path


@pytest.mark.parametrize("root", ["model", "plan-digest"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_verify_in_a_clean_room_gives_the_same_verdict_without_ray_or_onnxruntime(
    program: str, root: str, mlp_run: Run, models: Path, tmp_path: Path
) -> None:
    trust = {
        "model": ["--model", str(models / "mlp.onnx")],
        "plan-digest": ["--plan-digest", mlp_run.plan_digest],
    }[root]
    command = [*PROGRAMS[program], mlp_run.run_id, "--store", mlp_run.store]
    given = ["--project", mlp_run.project, *trust, "--allow-insecure-srs", "--json"]
    done = isolated(tmp_path, *command, *given)
    assert done.returncode == 0, done.stderr
    # A plan digest needs no model, and so not even onnx.
    assert done.stderr.splitlines()[-1].split()[1:] == (["onnx"] if root == "model" else [])
    verdict = json.loads(done.stdout)
    assert verdict["ok"]
    assert verdict["plan_digest"] == mlp_run.plan_digest
    assert verdict["trust_root"] == root.replace("-", " ")
    assert verdict["statement"] == mlp_run.verdict.statement
    assert verdict["hidden"] == ["h0", "h1"]
    assert all(step["seconds"] >= 0 for step in verdict["steps"])
    shown = {name: tuple(values) for name, values in verdict["revealed"].items()}
    assert shown == dict(mlp_run.verdict.revealed)


@pytest.mark.parametrize("program", PROGRAMS)
def test_verify_of_a_bundle_in_a_clean_room_shows_the_verdict(
    program: str, bundle: Path, mlp_run: Run, tmp_path: Path
) -> None:
    trust = ["--plan-digest", mlp_run.plan_digest, "--allow-insecure-srs"]
    done = isolated(tmp_path, *PROGRAMS[program], str(bundle), *trust)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("VERIFIED run mlp")
    assert "Committed, not shown: h0, h1" in done.stdout
    assert "inputs in steps of 2^-8" in done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_refusals_and_wrong_calls_have_the_exit_codes_of_the_contract(
    program: str, bundle: Path, mlp_run: Run, tmp_path: Path
) -> None:
    trust = ["--plan-digest", mlp_run.plan_digest]
    for arguments, code, message in (
        ([str(bundle), *trust], 1, "whoever generated it can forge"),
        (
            [str(bundle), "--plan-digest", "0" * 64, "--allow-insecure-srs"],
            1,
            "not the trusted one",
        ),
        ([str(bundle)], 2, "exactly one trust root"),
        ([str(bundle), "--plan-digest", "abc"], 2, "64 lowercase hexadecimal digits"),
        ([str(bundle), *trust, "--store", "x"], 2, "leave --store out"),
        (["missing.zip", *trust], 2, "no such bundle"),
        (["nowhere", *trust], 2, "no run nowhere"),
        ([str(bundle), *trust, "--json", "--nonsense"], 2, "nonsense"),
        (["mlp", *trust, "--store", "s3://bucket/x"], 2, "pip install 'zkml-ray[s3]'"),
    ):
        done = isolated(tmp_path, *PROGRAMS[program], *arguments)
        assert done.returncode == code, done.stderr
        error, *_ = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert message in error
        assert done.stdout == ""


def test_refusal_as_json_names_its_code(bundle: Path, mlp_run: Run, tmp_path: Path) -> None:
    given = ["--plan-digest", mlp_run.plan_digest, "--json"]
    done = isolated(tmp_path, "zkml_ray.verifier", str(bundle), *given)
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["ok"], shown["code"]) == (1, False, "srs-insecure")


@pytest.mark.parametrize(
    "arguments", [["prove", "MODEL"], ["resume", "some"], ["demo"]], ids=lambda a: a[0]
)
def test_proving_without_ray_says_what_to_install(
    arguments: list[str], models: Path, tmp_path: Path
) -> None:
    given = [str(models / "mlp.onnx") if word == "MODEL" else word for word in arguments]
    done = isolated(tmp_path, "zkml_ray.command_line.cli", *given)
    assert done.returncode == 2
    (error, *_) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.endswith("pip install 'zkml-ray[prove]'")
    assert "Traceback" not in done.stderr


def test_plan_and_its_digest_need_no_ray(mlp_run: Run, models: Path, tmp_path: Path) -> None:
    """Who publishes a plan's digest is a verifier: the same keys, made from the model."""
    options = ["--scale", "8", "--layers-per-chunk", "1"]
    given = ["plan", str(models / "mlp.onnx"), *options, "--verify-keys", "--json"]
    (tmp_path / "cache" / "srs").mkdir(parents=True)
    for logrows in {chunk.arguments.logrows for chunk in mlp_run.plan.chunks}:
        ref = mlp_run.manifest.artifacts[names.srs(logrows)]
        store = LocalStore(mlp_run.store.removeprefix("file://"))
        store.fetch_verified(ref, tmp_path / "cache" / "srs" / f"insecure-kzg{logrows}.srs")
    done = isolated(tmp_path, "zkml_ray.command_line.cli", *given)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["plan_digest"] == mlp_run.plan_digest
    assert shown["srs_trust"] == "insecure"


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
    wanted = f"{repository}[verify,s3]"
    install = ["-m", "pip", "install", "--quiet", "-c", "constraints.txt", wanted]
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


@pytest.mark.slow
def test_verify_extra_brings_neither_ray_nor_onnxruntime_nor_boto3_and_verifies_a_bundle(
    bundle: Path, mlp_run: Run, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    wanted = f"{repository}[verify]"
    install = ["-m", "pip", "install", "--quiet", "-c", "constraints.txt", wanted]
    subprocess.run([python, *install], check=True, cwd=repository)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True
    )
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "ezkl" in installed
    assert not installed & {"ray", "onnxruntime", "boto3", "botocore", "torch", "zkml"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    trust = ["--plan-digest", mlp_run.plan_digest, "--allow-insecure-srs", "--json"]
    for program in (["-m", "zkml_ray.verifier"], ["-m", "zkml_ray.command_line.cli", "verify"]):
        done = subprocess.run(
            [python, *program, str(bundle), *trust],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["plan_digest"] == mlp_run.plan_digest
    used = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    print(f"{len(installed)} packages, {used / (1 << 20):.0f} MiB")

"""zkml-o3-runner: each stage in a process and with a cache of its own, sharing only the store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from examples.simple_distributed import build_mlp
from tests.layers import BY_LAYER
from tests.s3.server import BUCKET, KEY_ID, SECRET, rclone_server, running
from zkml_ray import resume, verify
from zkml_ray.api import advance, prepare
from zkml_ray.circuits.keyindex import KeyIndex
from zkml_ray.run.housekeeping import describe_run
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.stages.setup import StoreKeys
from zkml_ray.stores import LocalStore
from zkml_ray.stores.layout import RunLayout

pytestmark = [pytest.mark.ray, pytest.mark.s3]

STAGES = ["prepare", "compile", "setup", "witness", "prove"]
RUN = "staged"
TIMEOUT_S = 300
LAYOUT = RunLayout("default", RUN)


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout.splitlines()[-1])


def command(module: str, *arguments: object, cache: Path, **environment: str) -> Done:
    """A command in a process of its own, outside the checkout."""
    cache.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", f"zkml_ray.{module}", *map(str, arguments)],
        env={**os.environ, **environment, "ZKML_RAY_CACHE": str(cache)},
        cwd=cache,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "mlp2.onnx"
    onnx.save(build_mlp(2, width=4, outputs=3), path)
    return path


@dataclass(frozen=True)
class Staged:
    """A run made stage by stage on an S3 server.

    Attributes:
        copies: Per stage, a copy of the store as that stage left it; "verify": the complete run.
        outputs: What the stages said.
        logs: Ray's folder.
        bucket: The bucket's folder.
        refused: A run from another process that has no credentials: how it failed.
        seen: The verification from an empty cache.
    """

    copies: dict[str, Path]
    outputs: list[str]
    logs: Path
    bucket: Path
    refused: Done
    seen: Done


@pytest.fixture(scope="module")
def on_s3(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    folder = tmp_path_factory.mktemp("staged")
    bucket = folder / "server" / BUCKET
    bucket.mkdir(parents=True)
    copies, outputs = {}, []
    where = ["--store", f"s3://{BUCKET}/runs", "--json"]
    with running(rclone_server(bucket.parent)) as server, tempfile.TemporaryDirectory() as logs:
        open_ = {"AWS_ENDPOINT_URL_S3": server.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "RAY_TMPDIR": logs}
        for stage in [*STAGES, "verify"]:
            given = [model] if stage == "prepare" else []
            cache = folder / f"cache-{stage}"
            done = command(
                "command_line.o3_runner",
                stage,
                *given,
                "--run",
                RUN,
                *where,
                cache=cache,
                **open_,
                **keys,
            )
            assert done.code == 0, done.stderr
            outputs.append(done.stdout + done.stderr)
            copies[stage] = shutil.copytree(bucket / "runs", folder / f"after-{stage}")
        trust = ["--model", model, "--allow-insecure-srs"]
        seen = command(
            "command_line.cli", "verify", RUN, *trust, *where, cache=folder / "v", **open_, **keys
        )
        wrong = {**keys, "AWS_SECRET_ACCESS_KEY": SECRET[::-1]}
        refused = command(
            "command_line.cli", "verify", RUN, *trust, *where, cache=folder / "w", **open_, **wrong
        )
        yield Staged(copies, outputs, Path(logs), bucket, refused, seen)


@pytest.fixture
def staged(on_s3: Staged) -> dict[str, Path]:
    return on_s3.copies


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "empty-cache"
    monkeypatch.setenv("ZKML_RAY_CACHE", str(cache))
    return cache


def digests(store: Path) -> dict[str, str]:
    """Digests of what lies in a store, but for the forecast, which is each machine's own."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "forecast.json"
    }


def accepted(store: Path, model: Path) -> bool:
    return verify(RUN, store=store, model=model, allow_insecure_srs=True).ok


def test_stages_apart_end_in_a_run_of_one_chunk_that_verifies(
    staged: dict[str, Path], model: Path, empty_cache: Path
) -> None:
    store = staged["verify"]
    found = describe_run(LocalStore(store), LAYOUT)
    assert (found.state, found.chunks, found.proofs) == ("complete", 1, 1)
    assert accepted(store, model)
    manifest = json.loads((store / LAYOUT.manifest).read_bytes())
    assert manifest["command"][0] == "zkml-o3-runner"
    assert [chunk["keys_made"] for chunk in manifest["chunks"]] == [False]
    assert "keys/chunk-000/pk.key" in manifest["artifacts"]


def test_every_stage_adds_to_the_store_and_changes_nothing_that_is_there(
    staged: dict[str, Path],
) -> None:
    before: dict[str, str] = {}
    for store in staged.values():
        after = digests(store)
        assert before.items() < after.items()
        before = after


@pytest.mark.parametrize("stage", STAGES)
def test_resume_after_losing_everything_local_goes_on_from_each_stage(
    ray_cluster: None,
    staged: dict[str, Path],
    model: Path,
    tmp_path: Path,
    empty_cache: Path,
    stage: str,
) -> None:
    store = shutil.copytree(staged[stage], tmp_path / "store")
    before = digests(store)
    run = resume(RUN, store=store, workers=1, threads=1)
    assert run.verified
    # Fetched keys stay out of the cache that verify trusts.
    assert (empty_cache / "keys").exists() == (stage in ("prepare", "compile"))
    assert accepted(store, model)
    assert before.items() <= digests(store).items()
    assert run.resumed == (("chunk-000",) if stage == "prove" else ())
    made = [record.keys_made for record in run.manifest.chunks]
    assert made == [stage in ("prepare", "compile")]


def test_stage_without_its_predecessors_does_them_first(
    ray_cluster: None, model: Path, tmp_path: Path, empty_cache: Path
) -> None:
    store = tmp_path / "store"
    prepare(model, store=store, run_id=RUN, options=BY_LAYER)
    advance(RUN, "prove", store=store, workers=2, threads=1)
    found = describe_run(LocalStore(store), LAYOUT)
    assert (found.state, found.chunks, found.proofs) == ("under way", 2, 2)
    before = digests(store)
    advance(RUN, "setup", store=store, threads=1)
    advance(RUN, "witness", store=store)
    advance(RUN, "prove", store=store, threads=1)
    after = digests(store)
    logs = {key for key in after if "/reports/events-" in key}
    assert len(logs) == 4, "what happened in each is kept"
    assert {key: after[key] for key in after.keys() - logs} == {
        key: before[key] for key in before.keys() - logs
    }
    run = resume(RUN, store=store, workers=1, threads=1)
    assert set(run.resumed) == {"chunk-000", "chunk-001"}
    assert accepted(store, model)


def test_stages_of_a_complete_run_say_so_and_verify_asks_for_a_trust_root(
    staged: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(staged["verify"], tmp_path / "store")
    before = digests(store)
    where = ["--run", RUN, "--store", store, "--json"]
    done = command("command_line.o3_runner", "resume", *where, cache=tmp_path / "cache")
    assert (done.code, done.json["state"]) == (0, "complete")
    refused = command("command_line.o3_runner", "verify", *where, cache=tmp_path / "cache")
    assert refused.code == 2
    assert "trust root" in refused.stderr
    assert (
        command(
            "command_line.o3_runner", "verify", *where, "--model", model, cache=tmp_path / "cache"
        ).code
        == 1
    )
    assert digests(store) == before


def test_stage_of_an_unknown_run_exits_2(tmp_path: Path) -> None:
    arguments = ["compile", "--run", "nothing", "--store", tmp_path / "store"]
    done = command("command_line.o3_runner", *arguments, cache=tmp_path / "cache")
    assert done.code == 2
    assert "no run nothing" in done.stderr


def key_index(store: Path) -> Path:
    (path,) = (store / "projects" / "default" / "artifacts" / "key-indexes").iterdir()
    return path


@pytest.mark.parametrize("damage", ["flipped", "deleted"])
def test_damaged_proving_key_in_the_store_is_not_used_and_is_mended(
    ray_cluster: None,
    staged: dict[str, Path],
    model: Path,
    tmp_path: Path,
    empty_cache: Path,
    damage: str,
) -> None:
    store = shutil.copytree(staged["witness"], tmp_path / "store")
    index = KeyIndex.parse(key_index(store).read_bytes(), what="key index")
    path = store / index.pk.key
    if damage == "flipped":
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\xff\xff\xff\xff")
    else:
        path.unlink()
    run = resume(RUN, store=store, workers=1, threads=1, store_keys=StoreKeys.ALL)
    assert [record.keys_made for record in run.manifest.chunks] == [True]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == index.pk.sha256
    assert accepted(store, model)


def test_index_that_points_to_another_circuits_keys_leads_to_a_refused_proof_and_own_keys(
    ray_cluster: None, staged: dict[str, Path], model: Path, tmp_path: Path, empty_cache: Path
) -> None:
    store = shutil.copytree(staged["witness"], tmp_path / "store")
    other = tmp_path / "other.onnx"
    onnx.save(build_mlp(2, width=4, outputs=3, seed=3), other)
    prepare(other, store=store, run_id="other", options=PlanOptions(scale=8, layers_per_chunk=100))
    mine = key_index(store)
    advance("other", "setup", store=store, threads=1, store_keys=StoreKeys.ALL)
    (theirs,) = set(mine.parent.iterdir()) - {mine}
    right = KeyIndex.parse(mine.read_bytes(), what="key index")
    wrong = KeyIndex.parse(theirs.read_bytes(), what="key index")
    mine.write_bytes(right.model_copy(update={"vk": wrong.vk, "pk": wrong.pk}).to_bytes())
    run = resume(RUN, store=store, workers=1, threads=1, store_keys=StoreKeys.ALL)
    (record,) = run.manifest.chunks
    assert (record.attempts, record.keys_made) == (2, True)
    assert KeyIndex.parse(mine.read_bytes(), what="key index") == right
    assert accepted(store, model)


def test_run_on_s3_is_verified_from_an_empty_cache_with_the_right_secret_alone(
    on_s3: Staged,
) -> None:
    assert (on_s3.seen.code, on_s3.seen.json["ok"]) == (0, True), on_s3.seen.stderr
    assert on_s3.refused.code == 3
    assert SECRET[::-1] not in on_s3.refused.stderr


def test_workers_get_credentials_and_no_log_or_object_holds_the_secret(on_s3: Staged) -> None:
    logged = [path for path in on_s3.logs.rglob("*") if path.is_file()]
    assert any(path.name.startswith("worker") for path in logged)
    stored = [path for path in on_s3.bucket.rglob("*") if path.is_file()]
    assert not any(SECRET in text for text in on_s3.outputs)
    assert not any(SECRET.encode() in path.read_bytes() for path in [*logged, *stored])

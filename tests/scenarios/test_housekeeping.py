"""Fetch, list, remove, collect: what is referred to stays, nothing leaves its folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import onnx
import pytest

from examples.simple_distributed import build_mlp
from tests.integration.command import run_here
from tests.layers import prove_layers
from zkml_ray import resume, verify
from zkml_ray.api import advance, prepare
from zkml_ray.canonical import file_sha256
from zkml_ray.errors import ConfigError, DigestMismatchError, ManifestError, VerificationError
from zkml_ray.run.housekeeping import collect, find_garbage, list_runs, remove_run
from zkml_ray.stages.setup import StoreKeys
from zkml_ray.stores import LocalStore
from zkml_ray.stores.fetch import fetch_run
from zkml_ray.stores.layout import RunLayout

pytestmark = pytest.mark.ray

PROJECT = "default"
NO_TIME = timedelta(0)
DAY = timedelta(hours=24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    onnx.save(build_mlp(1, width=4, outputs=3), path)
    return path


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "other.onnx"
    onnx.save(build_mlp(1, width=4, outputs=3, seed=5), path)
    return path


@pytest.fixture(scope="module")
def filled(
    ray_cluster: None, model: Path, other_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A store with three runs: two of one model, one of another with its proving key."""
    store = tmp_path_factory.mktemp("filled") / "store"
    for run_id in ("first", "second"):
        prove_layers(model, 1, store=store, run_id=run_id, threads=1)
    prove_layers(
        other_model,
        1,
        store=store,
        run_id="other",
        threads=1,
        keep_checkpoints=False,
        store_keys=StoreKeys.ALL,
    )
    return store


@pytest.fixture
def root(filled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(filled, tmp_path / "store")


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def keys(store: LocalStore) -> set[str]:
    return set(store.keys(""))


def referenced(root: Path, run_id: str) -> set[str]:
    path = root / "projects" / PROJECT / "runs" / run_id / "manifest.json"
    return {ref["key"] for ref in json.loads(path.read_bytes())["artifacts"].values()}


def edit_manifest(root: Path, edit: Callable[[Any], None], run_id: str = "first") -> None:
    path = root / "projects" / PROJECT / "runs" / run_id / "manifest.json"
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))


def holds(run_id: str, root: Path, model: Path) -> bool:
    return verify(run_id, store=root, model=model, allow_insecure_srs=True).ok


def test_fetch_writes_every_public_artifact_with_its_digest(root: Path, tmp_path: Path) -> None:
    found = run_here("fetch", "first", tmp_path / "out", "--store", root, "--json")
    assert found.code == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    public = {name for name in manifest["artifacts"] if not name.startswith("private/")}
    assert set(found.json["files"]) == public
    for name in public:
        assert file_sha256(tmp_path / "out" / name) == manifest["artifacts"][name]["sha256"]
    assert not (tmp_path / "out" / "private").exists()
    assert found.json["private_left_out"] == len(manifest["artifacts"]) - len(public) > 0


def test_fetch_with_private_writes_the_boundary_values_too(
    store: LocalStore, tmp_path: Path
) -> None:
    fetched = fetch_run(store, RunLayout(PROJECT, "first"), tmp_path / "out", private=True)
    assert fetched.private == 0
    assert (tmp_path / "out" / "private" / "boundary-000.json").is_file()


def test_fetch_again_mends_what_was_changed_and_keeps_the_rest(
    store: LocalStore, tmp_path: Path
) -> None:
    layout, out = RunLayout(PROJECT, "first"), tmp_path / "out"
    fetch_run(store, layout, out)
    kept, changed = out / "proofs" / "chunk-000.json", out / "plans" / "sealed.json"
    before = kept.stat().st_ino
    changed.write_text("{}")
    fetch_run(store, layout, out)
    assert kept.stat().st_ino == before
    assert changed.read_text() != "{}"


@pytest.mark.parametrize(
    "name",
    ["../escaped", "/escaped", "proofs/../../escaped", "a//b", "..", "a\\..\\b", "manifest.json"],
)
def test_fetch_of_a_manifest_with_a_path_for_a_name_writes_nothing(
    store: LocalStore, root: Path, tmp_path: Path, name: str
) -> None:
    def rename(document: Any) -> None:
        document["artifacts"][name] = document["artifacts"]["plans/sealed.json"]

    edit_manifest(root, rename)
    with pytest.raises(ManifestError, match="no logical name"):
        fetch_run(store, RunLayout(PROJECT, "first"), tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_fetch_of_a_manifest_that_names_another_runs_object_writes_nothing(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    def point(document: Any) -> None:
        other = f"projects/{PROJECT}/runs/second/private/input.json"
        document["artifacts"]["proofs/chunk-000.json"]["key"] = other

    edit_manifest(root, point)
    with pytest.raises(ManifestError, match="another run"):
        fetch_run(store, RunLayout(PROJECT, "first"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fetch_of_a_private_object_under_a_public_name_leaves_it_out(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    def disguise(document: Any) -> None:
        document["artifacts"]["reports/input"] = document["artifacts"]["private/input.json"]

    edit_manifest(root, disguise)
    fetched = fetch_run(store, RunLayout(PROJECT, "first"), tmp_path / "out")
    assert "reports/input" not in fetched.files
    assert not (tmp_path / "out" / "reports").exists()


def test_fetch_into_a_folder_with_a_link_that_leads_out_is_refused(
    store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "proofs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="leads out"):
        fetch_run(store, RunLayout(PROJECT, "first"), tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_fetch_of_a_changed_object_names_it_and_leaves_no_file(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    path = root / "projects" / PROJECT / "runs" / "first" / "proofs" / "chunk-000.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    with pytest.raises(DigestMismatchError, match=r"proofs/chunk-000\.json was changed"):
        fetch_run(store, RunLayout(PROJECT, "first"), tmp_path / "out")
    assert not (tmp_path / "out" / "proofs" / "chunk-000.json").exists()
    assert run_here("fetch", "first", tmp_path / "out", "--store", root).code == 3


def test_fetch_and_rm_of_an_unknown_run_exit_2(root: Path, tmp_path: Path) -> None:
    assert run_here("fetch", "nothing", tmp_path / "out", "--store", root).code == 2
    assert run_here("rm", "nothing", "--store", root).code == 2


def test_gc_without_yes_deletes_nothing(store: LocalStore, root: Path) -> None:
    remove_run(store, RunLayout(PROJECT, "other"))
    before = keys(store)
    found = run_here("gc", "--store", root, "--older-than", "0", "--json")
    assert (found.code, found.json["deleted"]) == (0, False)
    assert len(found.json["objects"]) > 0
    assert keys(store) == before


def test_gc_after_rm_deletes_exactly_the_unreferenced(
    store: LocalStore, root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = keys(store)
    mine = {key for key in everything if key.startswith(f"projects/{PROJECT}/runs/other/")}
    only_other = referenced(root, "other") - referenced(root, "first") - mine
    assert any("/key-indexes/" in key for key in only_other)
    assert run_here("rm", "other", "--store", root, "--yes").code == 0
    assert keys(store) == everything - mine
    found = run_here("gc", "--store", root, "--older-than", "0", "--yes", "--json")
    assert set(found.json["objects"]) == only_other
    assert keys(store) == everything - mine - only_other
    run_here("rm", "first", "--store", root, "--yes")
    again = run_here("gc", "--store", root, "--older-than", "0", "--yes", "--json")
    assert again.json["objects"] == []
    assert holds("second", root, model)
    with capsys.disabled():
        print(f"\ngc: {len(only_other)} of {len(everything)} objects were nobody's, all deleted")


def test_gc_of_a_store_with_complete_runs_alone_finds_nothing(store: LocalStore) -> None:
    garbage = find_garbage(store, PROJECT, older_than=NO_TIME)
    assert (garbage.objects, garbage.uploads, garbage.held_by) == ({}, (), ())


def test_gc_keeps_what_a_run_under_way_needs_and_the_run_goes_on(
    ray_cluster: None,
    store: LocalStore,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "third.onnx"
    onnx.save(build_mlp(1, width=4, outputs=3, seed=9), path)
    prepare(path, store=root, run_id="third")
    advance("third", "setup", store=root, threads=1, store_keys=StoreKeys.ALL)
    young = find_garbage(store, PROJECT, older_than=DAY)
    assert young.held_by == ("third",)
    before = keys(store)
    garbage = find_garbage(store, PROJECT, older_than=NO_TIME)
    assert garbage.objects == {}
    collect(store, PROJECT, garbage, older_than=NO_TIME)
    assert keys(store) == before
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "empty"))
    run = resume("third", store=root, workers=1, threads=1)
    assert run.verified
    assert [record.keys_made for record in run.manifest.chunks] == [False]


def test_gc_holds_everything_shared_while_a_young_run_is_under_way(
    store: LocalStore, root: Path, model: Path
) -> None:
    prepare(model, store=root, run_id="young")
    remove_run(store, RunLayout(PROJECT, "other"))
    found = run_here("gc", "--store", root, "--yes", "--json")
    assert (found.json["objects"], found.json["held_by"]) == ([], ["young"])


def test_gc_stops_at_a_manifest_that_cannot_be_read(store: LocalStore, root: Path) -> None:
    edit_manifest(root, lambda document: document.pop("plan_sha256"))
    before = keys(store)
    found = run_here("gc", "--store", root, "--older-than", "0", "--yes")
    assert found.code == 2
    assert "manifest.json is not valid" in found.errors[0]
    assert keys(store) == before


def test_gc_deletes_private_leftovers_and_remains_of_runs(store: LocalStore) -> None:
    left = [
        f"projects/{PROJECT}/runs/other/private/boundary-000.json",
        f"projects/{PROJECT}/runs/never-begun/private/input.json",
    ]
    for key in left:
        store.put(key, b"{}")
    garbage = find_garbage(store, PROJECT, older_than=DAY)
    assert sorted(garbage.objects) == sorted(left)
    collect(store, PROJECT, garbage, older_than=DAY)
    assert not set(left) & keys(store)


def test_gc_keeps_what_came_to_be_referred_to_since_it_looked(
    store: LocalStore, root: Path, other_model: Path
) -> None:
    remove_run(store, RunLayout(PROJECT, "other"))
    garbage = find_garbage(store, PROJECT, older_than=NO_TIME)
    request = prepare(other_model, store=root, run_id="late")
    assert request.model.key in garbage.objects
    collect(store, PROJECT, garbage, older_than=NO_TIME)
    assert request.model.key in keys(store)


def test_gc_discards_unfinished_writes_that_are_old_enough(store: LocalStore, root: Path) -> None:
    folder = root / "projects" / PROJECT / "artifacts" / "keys"
    old, young = folder / ".tmp-old", folder / ".tmp-young"
    old.write_bytes(b"part")
    young.write_bytes(b"part")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    found = run_here("gc", "--store", root, "--yes", "--json")
    assert [Path(upload).name for upload in found.json["uploads"]] == [".tmp-old"]
    assert (old.exists(), young.exists()) == (False, True)


class RecordingStore(LocalStore):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.deleted: list[str] = []

    def delete(self, key: str) -> None:
        self.deleted.append(key)
        super().delete(key)


def test_rm_deletes_the_manifest_first_then_the_request(root: Path) -> None:
    store, layout = RecordingStore(root), RunLayout(PROJECT, "first")
    count = remove_run(store, layout)
    assert store.deleted[:2] == [layout.manifest, layout.run_key("request.json")]
    assert len(store.deleted) == count
    assert all(key.startswith(layout.run_key("")) for key in store.deleted)
    with pytest.raises(ConfigError, match="no run first"):
        remove_run(store, layout)


def test_runs_lists_complete_runs_runs_under_way_and_leftovers(
    store: LocalStore, root: Path, model: Path
) -> None:
    prepare(model, store=root, run_id="begun")
    advance("begun", "plan", store=root)
    store.put(f"projects/{PROJECT}/runs/gone/proofs/chunk-000.json", b"{}")
    found = {run.run_id: run for run in list_runs(store, PROJECT)}
    assert {run_id: run.state for run_id, run in found.items()} == {
        "begun": "under way",
        "first": "complete",
        "gone": "left over",
        "other": "complete",
        "second": "complete",
    }
    assert (found["begun"].chunks, found["begun"].proofs, found["first"].proofs) == (1, 0, 1)
    told = run_here("runs", "--store", root)
    assert "under way, 0/1 proved; go on with: zkml-ray resume begun" in told.stdout


def test_run_that_keeps_no_checkpoints_leaves_nothing_private(
    store: LocalStore, root: Path
) -> None:
    assert not [key for key in keys(store) if "/runs/other/private/" in key]
    assert not [key for key in referenced(root, "other") if "/private/" in key]


def test_doctor_of_a_usable_folder_exits_0_and_leaves_nothing(tmp_path: Path) -> None:
    found = run_here("doctor", "--store", tmp_path / "new", "--json")
    assert (found.code, found.json["usable"]) == (0, True)
    assert keys(LocalStore(tmp_path / "new")) == set()


def test_doctor_of_an_unusable_folder_exits_3(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = run_here("doctor", "--store", tmp_path / "file", "--json")
    assert (found.code, found.json["usable"]) == (3, False)


def test_run_that_lists_no_keys_is_verified_by_the_model_and_gc_takes_its_keys(
    ray_cluster: None, model: Path, tmp_path: Path
) -> None:
    run = prove_layers(
        model, 1, store=tmp_path, run_id="keyless", threads=1, store_keys=StoreKeys.NONE
    )
    assert not [name for name in run.manifest.artifacts if name.endswith(".key")]
    store = LocalStore(tmp_path)
    garbage = find_garbage(store, PROJECT, older_than=NO_TIME)
    collect(store, PROJECT, garbage, older_than=NO_TIME)
    assert [key.split("/")[3] for key in garbage.objects] == ["keys"]
    assert holds("keyless", tmp_path, model)
    with pytest.raises(VerificationError, match="--model") as refused:
        verify("keyless", store=tmp_path, plan_digest=run.plan_digest, allow_insecure_srs=True)
    assert refused.value.code == "artifact-missing"

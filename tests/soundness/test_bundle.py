"""A bundle verifies like its run, from 400 bytes of SRS, and a damaged one is refused."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import ezkl
import pytest

from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.errors import ConfigError, StoreError, VerificationError
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.verifying.bundle import BundleStore, open_run, write_bundle
from zkml_ray.verifying.export import export_ezkl
from zkml_ray.verifying.trust import TrustRoot
from zkml_ray.verifying.verifier import verify_run

from .attacker import Attacker
from .tally import TALLY

pytestmark = pytest.mark.ray


@pytest.fixture(scope="session")
def bundle(mlp_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "mlp.zip"
    store = LocalStore(mlp_run.store.removeprefix("file://"))
    size_bytes = write_bundle(store, RunLayout(mlp_run.project, mlp_run.run_id), path)
    assert size_bytes == path.stat().st_size
    return path


def verify_bundle(path: Path, run: Run) -> object:
    store, layout = open_run(str(path))
    trust = TrustRoot(plan_digest=run.plan_digest)
    return verify_run(store, layout, trust, allow_insecure_srs=True)


def test_bundle_verifies_as_its_run_does(bundle: Path, mlp_run: Run) -> None:
    store, layout = open_run(str(bundle))
    verdict = verify_run(
        store, layout, TrustRoot(plan_digest=mlp_run.plan_digest), allow_insecure_srs=True
    )
    assert verdict.revealed == mlp_run.verdict.revealed
    assert bundle.stat().st_size < 40_000


def test_bundle_holds_nothing_private_and_no_whole_srs(bundle: Path, attacker: Attacker) -> None:
    store = BundleStore(bundle)
    listed = {ref["key"]: name for name, ref in attacker.manifest["artifacts"].items()}
    held = {listed.get(key, key) for key in store.keys("")}
    assert not [name for name in held if name.startswith((names.PRIVATE, "models/"))]
    assert all(store.size(key) < 20_000 for key in store.keys(""))


def test_bundle_is_the_same_bytes_every_time(bundle: Path, attacker: Attacker) -> None:
    again = bundle.with_name("again.zip")
    write_bundle(attacker.store, attacker.layout, again)
    assert again.read_bytes() == bundle.read_bytes()


def test_bundle_is_verified_by_the_model_with_the_verifier_s_own_srs_or_the_bundle_s(
    bundle: Path,
    attacker: Attacker,
    mlp_model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trust = TrustRoot(model=mlp_model)
    small = BundleStore(bundle)
    assert verify_run(small, small.layout, trust, allow_insecure_srs=True).ok
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path))
    TALLY.refused_with(
        lambda: verify_run(small, small.layout, trust, allow_insecure_srs=True),
        "artifact-missing",
        case="no whole SRS anywhere",
    )
    logrows = attacker.run.plan.chunks[0].arguments.logrows
    own = tmp_path / "srs" / f"insecure-kzg{logrows}.srs"
    own.parent.mkdir()
    own.write_bytes(attacker.read(names.srs(logrows))[:-1] + b"x")
    TALLY.refused_with(
        lambda: verify_run(small, small.layout, trust, allow_insecure_srs=True),
        "artifact-missing",
        case="another SRS in the cache",
    )
    whole = tmp_path / "whole.zip"
    write_bundle(attacker.store, attacker.layout, whole, whole_srs=True)
    store = BundleStore(whole)
    assert verify_run(store, store.layout, trust, allow_insecure_srs=True).ok


def test_run_without_stored_keys_is_verified_by_the_model_alone(
    attacker: Attacker, mlp_model: LoadedModel, tmp_path: Path
) -> None:
    for chunk in attacker.run.plan.chunks:
        del attacker.manifest["artifacts"][names.verifying_key(chunk.id)]
    assert attacker.verify(TrustRoot(model=mlp_model)).ok
    with pytest.raises(VerificationError, match="--model") as refused:
        attacker.verify()
    assert refused.value.code == "artifact-missing"
    path = tmp_path / "keyless.zip"
    write_bundle(attacker.store, attacker.layout, path)
    store = BundleStore(path)
    assert verify_run(store, store.layout, TrustRoot(model=mlp_model), allow_insecure_srs=True).ok


def test_forged_bundle_passes_neither_trust_root(
    forged_run: Run, mlp_run: Run, mlp_model: LoadedModel, tmp_path: Path
) -> None:
    forger = Attacker(forged_run)
    path = tmp_path / "forged.zip"
    write_bundle(forger.store, forger.layout, path, whole_srs=True)
    store, layout = open_run(str(path))
    own = TrustRoot(plan_digest=forged_run.plan_digest)
    assert verify_run(store, layout, own, allow_insecure_srs=True).ok
    for trust, code in (
        (TrustRoot(plan_digest=mlp_run.plan_digest), "plan-digest"),
        (TrustRoot(model=mlp_model), "model-digest"),
    ):
        TALLY.refused_with(
            lambda trust=trust: verify_run(store, layout, trust, allow_insecure_srs=True),
            code,
            case="forged bundle",
        )


def rezipped(bundle: Path, edit: Callable[[dict[str, bytes]], None]) -> bytes:
    with zipfile.ZipFile(bundle) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    edit(entries)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_every_entry_of_a_bundle_changed_or_dropped_is_refused(
    bundle: Path, mlp_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "tampered.zip"
    for name in BundleStore(bundle).keys(""):

        def flip(entries: dict[str, bytes], name: str = name) -> None:
            data = bytearray(entries[name])
            data[len(data) // 2] ^= 1
            entries[name] = bytes(data)

        def drop(entries: dict[str, bytes], name: str = name) -> None:
            del entries[name]

        for edit in (flip, drop):
            path.write_bytes(rezipped(bundle, edit))
            TALLY.refused_with(
                lambda: verify_bundle(path, mlp_run),
                "artifact-digest",
                "artifact-missing",
                "manifest-schema",
                "manifest-claims",
                "bundle",
                "run-identity",
                case=f"{edit.__name__} {name} in a bundle",
            )


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "a/../../evil", "a//b", ".hidden", "a\\b", "C:evil", "folder/"],
)
def test_bundle_entry_that_would_leave_its_folder_is_refused(
    bundle: Path, mlp_run: Run, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "traversal.zip"
    path.write_bytes(rezipped(bundle, lambda entries: entries.update({name: b"x"})))
    TALLY.refused_with(lambda: verify_bundle(path, mlp_run), "bundle", case=f"entry {name}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_malformed_zips_are_refused(bundle: Path, mlp_run: Run, tmp_path: Path) -> None:
    honest = bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        manifest_key = next(n for n in archive.namelist() if n.endswith("manifest.json"))
        manifest = archive.read(manifest_key)
    duplicate = io.BytesIO(honest)
    with zipfile.ZipFile(duplicate, "a") as archive:
        archive.writestr(manifest_key, manifest)
    commented = io.BytesIO(honest)
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"hello"
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(manifest_key, manifest)
    large = io.BytesIO()
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(large, "w") as archive:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == manifest_key:  # what zip64 keeps an offset in
                info.extra = struct.pack("<2HQ", 1, 8, (1 << 63) - 10)
            archive.writestr(info, data)
    directory_bytes, offset = struct.unpack("<2L", honest[-10:-2])
    cases = {
        "empty": b"",
        "no zip": b"hello",
        "text": json.dumps({"a": 1}).encode(),
        "cut": honest[:-1],
        "half": honest[: len(honest) // 2],
        "prefixed": b"#!/bin/sh\n" + honest,
        "appended": honest + b"\0",
        "commented": commented.getvalue(),
        "duplicate entry": duplicate.getvalue(),
        "lzma": squeezed.getvalue(),
        "many entries": honest[:-14] + struct.pack("<2H", 60_000, 60_000) + honest[-10:],
        "large directory": honest[:-10] + struct.pack("<2L", 1 << 28, offset) + honest[-2:],
        "wrong offset": honest[:-10]
        + struct.pack("<2L", directory_bytes, offset + 1)
        + honest[-2:],
        "encrypted": _with_flag(honest, 0x1),
        "extra field": large.getvalue(),
        "zip64 offset": _with_offset(large.getvalue(), 0xFFFFFFFF),
        "offset beyond the file": _with_offset(honest, 0x7FFFFFFF),
    }
    path = tmp_path / "malformed.zip"
    for case, data in cases.items():
        path.write_bytes(data)
        TALLY.refused_with(lambda: verify_bundle(path, mlp_run), "bundle", case=case)


def _with_offset(data: bytes, offset: int) -> bytes:
    """The same zip, the last entry's place in the file another."""
    start = data.rindex(b"PK\x01\x02")
    return data[: start + 42] + struct.pack("<L", offset) + data[start + 46 :]


def _with_flag(data: bytes, flag: int) -> bytes:
    start = data.index(b"PK\x01\x02")
    return data[: start + 8] + struct.pack("<H", flag) + data[start + 10 :]


def test_zip_bomb_is_refused_by_what_it_unpacks_to(
    bundle: Path, mlp_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.zip"
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(bundle) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, bytes(80 << 20) if name.endswith("manifest.json") else data)
    path.write_bytes(buffer.getvalue())
    TALLY.refused_with(lambda: verify_bundle(path, mlp_run), "manifest-schema", case="bomb")
    # The directory lies about the size: reading stops at what it says, and the check sum fails.
    data = bytearray(bundle.read_bytes())
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = struct.pack("<L", 7)
    path.write_bytes(data)
    TALLY.refused_with(
        lambda: verify_bundle(path, mlp_run), "bundle", "artifact-size", case="lying size"
    )


def test_bundle_cannot_be_written_to(bundle: Path, tmp_path: Path) -> None:
    store = BundleStore(bundle)
    for write in (
        lambda: store.put("a", b""),
        lambda: store.put_file("a", tmp_path),
        lambda: store.delete("a"),
    ):
        with pytest.raises(StoreError, match="only be read"):
            write()


def test_wrong_calls_of_a_bundle_say_what_to_do(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="no such bundle"):
        open_run("missing.zip")
    with pytest.raises(ConfigError, match="leave --store out"):
        open_run(str(bundle), store="elsewhere")


def test_exported_files_verify_with_stock_ezkl(
    mlp_run: Run, attacker: Attacker, bundle: Path, tmp_path: Path
) -> None:
    for source, where in ((attacker.store, "run"), (BundleStore(bundle), "bundle")):
        folder = tmp_path / where
        chunks = export_ezkl(source, attacker.layout, folder)
        assert [chunk.name for chunk in chunks] == [c.id for c in mlp_run.plan.chunks]
        index = json.loads((folder / "index.json").read_text())
        for chunk in chunks:
            for reduced in (True, False):
                assert ezkl.verify(
                    str(chunk / "proof.json"),
                    str(chunk / "settings.json"),
                    str(chunk / "vk.key"),
                    str(folder / index[chunk.name]["srs"]),
                    reduced,
                )
    with pytest.raises(ConfigError, match="not empty"):
        export_ezkl(attacker.store, attacker.layout, tmp_path / "run")


def test_exported_proof_of_another_chunk_is_refused_by_stock_ezkl(
    attacker: Attacker, tmp_path: Path
) -> None:
    first, second, _ = export_ezkl(attacker.store, attacker.layout, tmp_path / "out")
    (srs,) = (tmp_path / "out").glob("kzg*.srs")
    with pytest.raises(RuntimeError):
        ezkl.verify(
            str(second / "proof.json"),
            str(first / "settings.json"),
            str(first / "vk.key"),
            str(srs),
            True,
        )


def test_export_of_a_changed_run_is_refused(attacker: Attacker, tmp_path: Path) -> None:
    data = bytearray(attacker.read(names.verifying_key("chunk-000")))
    data[5] ^= 1
    attacker.change_bytes(names.verifying_key("chunk-000"), bytes(data))
    with pytest.raises(VerificationError, match="changed"):
        export_ezkl(attacker.store, attacker.layout, tmp_path / "out")


def test_verifier_part_of_the_srs_is_pinned_by_the_plan(attacker: Attacker) -> None:
    sealed = attacker.document(names.SEALED_PLAN)
    pin = sealed["srs"][0]
    whole = attacker.read(names.srs(pin["logrows"]))
    part = bytes(4) + whole[4:68] * 2 + whole[-256:]
    assert sha256_hex(part) == pin["verifier_sha256"]
    assert attacker.read(names.verifier_srs(pin["logrows"])) == part

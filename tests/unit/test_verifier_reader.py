"""Reading artifacts with nothing taken on trust: every limit and every digest, one step off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.paper_run import digest_of, paper_run
from zkml_ray import names
from zkml_ray.canonical import sha256_hex
from zkml_ray.circuits import backend
from zkml_ray.circuits.srs import srs_bytes, verifier_srs
from zkml_ray.errors import ConfigError, ManifestError, VerificationError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.plan import SrsPin
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.verifying.reader import PinnedReader, malformed_as, manifest_bytes

DATA = b"what was stored"
LOGROWS = 6


class Shelf:
    """A store, and a manifest's list of what is in it."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder / "store")
        self.folder = folder / "read"
        self.folder.mkdir()
        self.artifacts: dict[str, ArtifactRef] = {}

    def put(self, name: str, data: bytes = DATA) -> str:
        self.artifacts[name] = self.store.store(f"objects/{name}", data)
        return self.artifacts[name].sha256

    def claim(self, name: str, **fields: object) -> None:
        self.artifacts[name] = self.artifacts[name].model_copy(update=fields)

    def reader(self) -> PinnedReader:
        manifest = paper_run().manifest.model_copy(update={"artifacts": self.artifacts})
        return PinnedReader(manifest, self.store, self.folder)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def refused(code: str, read: Callable[[], object]) -> None:
    with pytest.raises(VerificationError) as caught:
        read()
    assert caught.value.code == code


@pytest.mark.parametrize("as_file", [False, True])
def test_artifact_is_read_only_as_listed_pinned_and_stored(shelf: Shelf, as_file: bool) -> None:
    sha256 = shelf.put("a/b")

    def read(pinned: str = sha256, most: int = len(DATA), name: str = "a/b") -> bytes:
        if as_file:
            return shelf.reader().file(name, max_bytes=most, pinned=pinned).read_bytes()
        return shelf.reader().read(name, max_bytes=most, pinned=pinned)

    assert read() == DATA
    refused("artifact-size", lambda: read(most=len(DATA) - 1))
    refused("artifact-pin", lambda: read(pinned=digest_of("another")))
    refused("artifact-missing", lambda: read(name="a/c"))
    shelf.claim("a/b", size_bytes=len(DATA) - 1)
    refused("artifact-size", read)
    shelf.claim("a/b", size_bytes=len(DATA) + 1)
    refused("artifact-size", lambda: read(most=len(DATA) + 1))
    shelf.claim("a/b", size_bytes=len(DATA), sha256=digest_of("another"))
    refused("artifact-digest", lambda: read(pinned=digest_of("another")))
    shelf.claim("a/b", sha256=sha256)
    shelf.store.put("objects/a/b", DATA[::-1])
    refused("artifact-digest", read)
    shelf.store.delete("objects/a/b")
    refused("artifact-missing", read)


def test_artifact_without_a_pin_is_still_the_listed_one(shelf: Shelf) -> None:
    shelf.put("p")
    assert shelf.reader().read("p", max_bytes=100) == DATA
    shelf.store.put("objects/p", DATA[::-1])
    refused("artifact-digest", lambda: shelf.reader().read("p", max_bytes=100))


def test_whatever_is_listed_under_a_pinned_name_is_the_pinned(shelf: Shelf) -> None:
    sha256 = shelf.put("a")
    shelf.reader().check_pins({"a": sha256, "not listed": digest_of("another")})
    refused("artifact-pin", lambda: shelf.reader().check_pins({"a": digest_of("another")}))


def test_verifying_key_is_the_stored_or_else_the_one_made(shelf: Shelf) -> None:
    pinned = sha256_hex(DATA)
    made = shelf.reader().verifying_key("chunk-000", pinned, DATA)
    assert made.read_bytes() == DATA
    refused("artifact-missing", lambda: shelf.reader().verifying_key("chunk-000", pinned, None))
    shelf.put(names.verifying_key("chunk-000"), DATA[::-1])
    refused("artifact-pin", lambda: shelf.reader().verifying_key("chunk-000", pinned, DATA))


def test_sealed_plan_is_the_canonical_one_of_its_digest(shelf: Shelf) -> None:
    sealed = paper_run().sealed
    data = sealed.to_bytes()
    sha256 = shelf.put(names.SEALED_PLAN, data)
    assert shelf.reader().sealed_plan(sha256) == sealed
    refused("artifact-pin", lambda: shelf.reader().sealed_plan(digest_of("another")))
    respelt = shelf.put(names.SEALED_PLAN, data + b"\n")
    refused("plan-schema", lambda: shelf.reader().sealed_plan(respelt))
    left_out = data.replace(b',"rewrites":[]', b"")
    assert left_out != data
    shorter = shelf.put(names.SEALED_PLAN, left_out)
    refused("plan-schema", lambda: shelf.reader().sealed_plan(shorter))


@pytest.fixture(scope="module")
def srs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("srs") / "kzg.srs"
    backend.generate_insecure_srs(path, LOGROWS)
    return path.read_bytes()


def pin_of(data: bytes, folder: Path, **fields: object) -> SrsPin:
    path = folder / "whole"
    path.write_bytes(data)
    pin = SrsPin(
        logrows=LOGROWS,
        sha256=sha256_hex(data),
        verifier_sha256=sha256_hex(verifier_srs(path, LOGROWS)),
        trust="insecure",
    )
    return pin.model_copy(update=fields)


def test_srs_is_the_pinned_one_and_its_verifiers_part_is_of_it(
    shelf: Shelf, srs: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "cache"))
    pin = pin_of(srs, tmp_path)
    refused("artifact-missing", lambda: shelf.reader().whole_srs(pin))
    shelf.put(names.srs(LOGROWS), srs)
    assert shelf.reader().whole_srs(pin).read_bytes() == srs
    other = pin_of(srs, tmp_path, verifier_sha256=digest_of("another part"))
    refused("srs-file", lambda: shelf.reader().whole_srs(other))
    larger = pin.model_copy(update={"logrows": LOGROWS + 1})
    shelf.put(names.srs(LOGROWS + 1), srs)
    refused("srs-file", lambda: shelf.reader().whole_srs(larger))
    longer = srs + b"0"
    assert len(longer) == srs_bytes(LOGROWS) + 1
    shelf.put(names.srs(LOGROWS), longer)
    too_long = pin.model_copy(update={"sha256": sha256_hex(longer)})
    refused("artifact-size", lambda: shelf.reader().whole_srs(too_long))


def test_verifiers_part_of_an_srs_is_the_pinned_one(
    shelf: Shelf, srs: bytes, tmp_path: Path
) -> None:
    pin = pin_of(srs, tmp_path)
    part = verifier_srs(tmp_path / "whole", LOGROWS)
    shelf.put(names.verifier_srs(LOGROWS), part)
    assert shelf.reader().srs(pin).read_bytes() == part
    refused(
        "artifact-pin", lambda: shelf.reader().srs(pin_of(srs, tmp_path, verifier_sha256="0" * 64))
    )


def test_run_that_is_not_stored_is_a_wrong_call(shelf: Shelf) -> None:
    with pytest.raises(ConfigError, match="no run nothing"):
        manifest_bytes(shelf.store, RunLayout("paper", "nothing"))


@pytest.mark.parametrize(
    "error", [ManifestError("m"), ValueError("v"), KeyError("k"), OverflowError()]
)
def test_document_that_cannot_be_read_is_refused_with_its_code(error: Exception) -> None:
    def read() -> None:
        with malformed_as("some-code"):
            raise error

    refused("some-code", read)

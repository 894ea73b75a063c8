"""Reading a run's artifacts with nothing taken on trust.

An artifact is named by the manifest and read only if the plan pins its digest, or, for proofs,
if it is of a bounded size: what a proof says is then checked by verifying it. Everything is
re-hashed. Limits stand before reading: the size that the manifest records, the size that the store
reports, and the most that any such artifact may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zkml_ray import names
from zkml_ray.canonical import sha256_hex
from zkml_ray.circuits.srs import VERIFIER_SRS_BYTES, own_srs, srs_bytes, verifier_srs
from zkml_ray.errors import (
    ArtifactNotFoundError,
    ConfigError,
    DigestMismatchError,
    FieldRangeError,
    ManifestError,
    ObjectTooLargeError,
    VerificationError,
    out_of_memory,
)
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import SealedPlan, SrsPin
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout

MAX_MANIFEST_BYTES: Final = 64 << 20
MAX_PLAN_BYTES: Final = 64 << 20
MAX_SETTINGS_BYTES: Final = 16 << 20
MAX_WEIGHTS_BYTES: Final = 1 << 30
MAX_KEY_BYTES: Final = 256 << 20
MAX_PROOF_DOCUMENT_BYTES: Final = 64 << 20


def manifest_bytes(store: ArtifactStore, layout: RunLayout) -> bytes:
    """The bytes of a stored run's manifest, unchecked.

    Raises:
        ConfigError: There is no such run.
        ObjectTooLargeError: It is larger than any manifest.
        StoreError: The store cannot be read.
    """
    try:
        return store.get(layout.manifest, max_bytes=MAX_MANIFEST_BYTES)
    except ArtifactNotFoundError:
        raise ConfigError(
            f"no run {layout.run_id} in project {layout.project} of {store.url}; "
            "list them with: zkml-ray runs"
        ) from None


class PinnedReader:
    """Reads the artifacts of one manifest from a store."""

    def __init__(self, manifest: Manifest, store: ArtifactStore, folder: Path) -> None:
        """Read nothing yet.

        Args:
            manifest: Names the artifacts.
            store: Holds them.
            folder: Receives those that are needed as files.
        """
        self._artifacts = manifest.artifacts
        self._store = store
        self._folder = folder

    def sealed_plan(self, sha256: str) -> SealedPlan:
        """The sealed plan of a digest, in canonical form."""
        data = self.read(names.SEALED_PLAN, max_bytes=MAX_PLAN_BYTES, pinned=sha256)
        with malformed_as("plan-schema"):
            sealed = SealedPlan.parse_canonical(data, what="sealed plan", max_bytes=MAX_PLAN_BYTES)
        if sealed.digest() != sha256:
            raise VerificationError(
                "the sealed plan leaves a field out", code="plan-schema", subject=names.SEALED_PLAN
            )
        return sealed

    def read(self, name: str, *, max_bytes: int, pinned: str | None = None) -> bytes:
        """An artifact's bytes.

        Args:
            name: Its logical name.
            max_bytes: The most it may have.
            pinned: The digest that it must be listed with.

        Raises:
            VerificationError: It is not listed, not there, or not the one pinned or listed.
        """
        ref = self._ref(name, max_bytes, pinned)
        with _refused(name):
            return self._store.read_verified(ref, max_bytes=max_bytes)

    def file(self, name: str, *, max_bytes: int, pinned: str) -> Path:
        """As `read`, as a file."""
        ref = self._ref(name, max_bytes, pinned)
        path = self._folder / name.replace("/", "-")
        with _refused(name):
            self._store.fetch_verified(ref, path)
        return path

    def verifying_key(self, chunk_id: str, pinned: str, made: bytes | None) -> Path:
        """A chunk's verifying key, as a file.

        Args:
            chunk_id: The chunk.
            pinned: The digest that the plan pins.
            made: The key of that digest that the verifier made, if it did. It is used where the run
                stored none (`--store-keys none`); a key that is stored is still checked.

        Raises:
            VerificationError: It is not listed and none was made, not there, or not the one pinned.
        """
        name = names.verifying_key(chunk_id)
        if name in self._artifacts:
            return self.file(name, max_bytes=MAX_KEY_BYTES, pinned=pinned)
        if made is None:
            raise VerificationError(
                f"the run stores no {name}: verify it with the model (--model), from which the key "
                "is made again",
                expected=pinned,
                subject=name,
                code="artifact-missing",
            )
        path = self._folder / name.replace("/", "-")
        path.write_bytes(made)
        return path

    def whole_srs(self, pin: SrsPin) -> Path:
        """The whole SRS file of one size, which making keys takes.

        Where the run has none, as in a bundle, the verifier's own file of that digest will do.

        Raises:
            VerificationError: It is not there, not the one pinned, or its verifier's part is not.
        """
        name = names.srs(pin.logrows)
        try:
            path = self.file(name, max_bytes=srs_bytes(pin.logrows), pinned=pin.sha256)
        except VerificationError as error:
            own = own_srs(pin) if error.code == "artifact-missing" else None
            if own is None:
                raise
            path = own
        try:
            part = sha256_hex(verifier_srs(path, pin.logrows))
        except ConfigError as error:
            raise VerificationError(str(error), subject=name, code="srs-file") from None
        if part != pin.verifier_sha256:
            raise VerificationError(
                f"the SRS of logrows {pin.logrows}: the part that proofs are checked with is "
                "another than the plan pins",
                expected=part,
                got=pin.verifier_sha256,
                subject=name,
                code="srs-file",
            )
        return path

    def srs(self, pin: SrsPin) -> Path:
        """The part of one size's SRS that checking proofs takes, as a file.

        Raises:
            VerificationError: It is not listed, not there, or not the one pinned.
        """
        name = names.verifier_srs(pin.logrows)
        return self.file(name, max_bytes=VERIFIER_SRS_BYTES, pinned=pin.verifier_sha256)

    def check_pins(self, pinned: dict[str, str]) -> None:
        """What the manifest lists under a name that the plan pins is what the plan pins.

        Raises:
            VerificationError: An artifact, read or not, is listed with another digest.
        """
        for name, sha256 in pinned.items():
            ref = self._artifacts.get(name)
            if ref is not None and ref.sha256 != sha256:
                raise _not_pinned(name, sha256, ref.sha256)

    def _ref(self, name: str, max_bytes: int, pinned: str | None) -> ArtifactRef:
        ref = self._artifacts.get(name)
        if ref is None:
            raise VerificationError(
                f"the manifest lists no {name}", subject=name, code="artifact-missing"
            )
        if ref.size_bytes > max_bytes:
            raise VerificationError(
                f"{name} has {ref.size_bytes} bytes; at most {max_bytes} are read",
                subject=name,
                code="artifact-size",
            )
        if pinned is not None and ref.sha256 != pinned:
            raise _not_pinned(name, pinned, ref.sha256)
        size_bytes = self._store.size(ref.key)
        if size_bytes is None:
            raise VerificationError(
                f"{name} is missing: {self._store.url} has no object {ref.key}",
                subject=name,
                code="artifact-missing",
            )
        if size_bytes != ref.size_bytes:
            raise VerificationError(
                f"{name} was changed: it has {size_bytes} bytes, {ref.size_bytes} were recorded",
                expected=str(ref.size_bytes),
                got=str(size_bytes),
                subject=name,
                code="artifact-size",
            )
        return ref


@contextmanager
def malformed_as(code: str) -> Iterator[None]:
    """Turn a document that cannot be read into a refusal with a code of its own."""
    try:
        yield
    except (ManifestError, FieldRangeError) as error:
        raise VerificationError(str(error), code=code) from None
    except MemoryError:
        raise out_of_memory("a document was read") from None
    except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise VerificationError(
            f"a document cannot be read: {type(error).__name__}: {str(error)[:200]}", code=code
        ) from None


@contextmanager
def _refused(name: str) -> Iterator[None]:
    try:
        yield
    except DigestMismatchError as error:
        raise VerificationError(
            str(error),
            expected=error.expected,
            got=error.got,
            subject=name,
            code="artifact-digest",
        ) from None
    except ArtifactNotFoundError as error:
        raise VerificationError(
            f"{name} is missing: {error}", subject=name, code="artifact-missing"
        ) from None
    except ObjectTooLargeError as error:
        raise VerificationError(str(error), subject=name, code="artifact-size") from None


def _not_pinned(name: str, pinned: str, got: str) -> VerificationError:
    return VerificationError(
        f"{name} is not the one that the plan pins",
        expected=pinned,
        got=got,
        subject=name,
        code="artifact-pin",
    )

"""A run's bundle: one zip file with all that a verifier needs, offline, and nothing secret.

It holds the manifest and every object that `verifying.verifier` reads: the sealed plan, settings,
verifying keys, proofs, and of each SRS the 388 bytes that checking a proof takes, whose digest the
plan pins. Entries are named by their store keys, so `BundleStore` is an ordinary
read-only store and the same code verifies both. A bundle can no more vouch for itself than a store
can: the verifier still needs its trust root. With the model as trust root, keys are made again,
which takes the whole SRS: the verifier's own, or that of `write_bundle(..., whole_srs=True)`.

The zip is as plain as can be: no comment, no zip64, stored or deflated entries, sorted names, fixed
time stamps. Any other is refused before its directory is read; every entry is bounded by the size
its reader allows, whatever the directory says.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from zkml_ray import names
from zkml_ray.config import default_store_url
from zkml_ray.errors import (
    ArtifactNotFoundError,
    ConfigError,
    ObjectTooLargeError,
    StoreError,
    VerificationError,
)
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import SealedPlan
from zkml_ray.stores import open_store
from zkml_ray.stores.base import ArtifactStore, ObjectInfo, UnfinishedUpload, checked_key
from zkml_ray.stores.layout import MANIFEST, RunLayout
from zkml_ray.verifying.reader import MAX_MANIFEST_BYTES, MAX_PLAN_BYTES, manifest_bytes

MAX_BUNDLE_BYTES: Final = 2 << 30
MAX_ENTRIES: Final = 50_000
MAX_DIRECTORY_BYTES: Final = 16 << 20

_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)
_BLOCK_BYTES: Final = 1 << 20
_END: Final = struct.Struct("<4s4H2LH")
_END_SIGNATURE: Final = b"PK\x05\x06"
_ZIP64_LOCATOR: Final = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES: Final = 20


def write_bundle(
    store: ArtifactStore, layout: RunLayout, out: Path, *, whole_srs: bool = False
) -> int:
    """Write a run's bundle.

    Args:
        store: Where the run lies.
        layout: Its project and id.
        out: The zip file to write; replaced if it exists.
        whole_srs: Include whole SRS files, for verifiers whose trust root is the model and who
            have none.

    Returns:
        The bundle's size in bytes.

    Raises:
        ConfigError: There is no such run.
        StoreError: An object is missing or changed, the file cannot be written, or it would have
            2 GiB or more.
        ManifestError: The run's documents are not readable.
    """
    data = manifest_bytes(store, layout)
    manifest = Manifest.parse_canonical(data, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
    sealed_ref = _listed(manifest, names.SEALED_PLAN)
    sealed_data = store.read_verified(sealed_ref, max_bytes=MAX_PLAN_BYTES)
    sealed = SealedPlan.parse_canonical(sealed_data, what="sealed plan")
    wanted = [sealed_ref]
    for chunk in sealed.plan.chunks:
        wanted += [_listed(manifest, name(chunk.id)) for name in (names.settings, names.proof)]
        if chunk.weights_sha256 is not None:
            wanted.append(_listed(manifest, names.weights(chunk.id)))
        # A run that stores no keys (--store-keys none) is for verifiers who have the model.
        vk = manifest.artifacts.get(names.verifying_key(chunk.id))
        wanted += [] if vk is None else [vk]
    for index in range(len(sealed.plan.lookups)):
        wanted.append(_listed(manifest, names.table(index)))
    for pin in sealed.srs:
        wanted.append(_listed(manifest, names.verifier_srs(pin.logrows)))
        wanted += [_listed(manifest, names.srs(pin.logrows))] if whole_srs else []
    objects = {ref.key: ref for ref in wanted}
    try:
        with tempfile.TemporaryDirectory(prefix=".zkml-ray-", dir=out.parent) as folder:
            part = Path(folder) / out.name
            with zipfile.ZipFile(part, "w", allowZip64=False) as archive:
                for key in sorted({*objects, layout.manifest}):
                    content = store.read_verified(objects[key]) if key in objects else data
                    info = zipfile.ZipInfo(key, date_time=_TIMESTAMP)
                    info.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(info, content, compresslevel=9)
            part.replace(out)
    except zipfile.LargeZipFile:
        raise StoreError(
            f"{out.name} would have more than 2 GiB: share the store instead"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror}") from None
    return out.stat().st_size


def open_run(
    run: str, *, store: str | None = None, project: str = "default"
) -> tuple[ArtifactStore, RunLayout]:
    """Open a run by its id in a store, or by the path of its bundle.

    Args:
        run: The id, or the path of a bundle.
        store: Folder or URL; default: ZKML_RAY_STORE or ./zkml-ray-store. Not with a bundle.
        project: Project in the store; a bundle knows its own.

    Raises:
        ConfigError: A store is named beside a bundle, or the id is none.
        VerificationError: The bundle is malformed.
    """
    path = Path(run)
    if path.suffix == ".zip" or "/" in run:
        if not path.is_file():
            raise ConfigError(f"no such bundle: {run}")
        if store is not None:
            raise ConfigError(f"{run} is a bundle: leave --store out, or give a run's id")
        bundle = BundleStore(path)
        return bundle, bundle.layout
    return open_store(store or default_store_url()), RunLayout(project, run)


class BundleStore(ArtifactStore):
    """A bundle as a read-only store."""

    def __init__(self, path: Path) -> None:
        """Open a bundle and read its directory.

        Raises:
            ConfigError: The file cannot be read.
            VerificationError: It is no bundle: code "bundle".
        """
        self._path = path
        try:
            with path.open("rb") as file:
                _check_end(path, file)
                with zipfile.ZipFile(file) as archive:
                    self._entries = {info.filename: info for info in archive.infolist()}
                    listed = archive.infolist()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        # zipfile raises NotImplementedError for what it cannot read: several disks, methods.
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
            _malformed(path, str(error))
        if len(self._entries) != len(listed):
            _malformed(path, "it names an entry twice")
        for info in listed:
            self._check_entry(info)
        self.layout = self._run()

    @property
    def url(self) -> str:
        """The bundle's path, for messages; `open_store` does not open it."""
        return f"bundle:{self._path}"

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """See `ArtifactStore.get`."""
        buffer = io.BytesIO()
        self._copy(key, buffer, max_bytes)
        return buffer.getvalue()

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> None:
        """See `ArtifactStore.get_file`."""
        try:
            with path.open("wb") as target:
                self._copy(key, target, MAX_BUNDLE_BYTES if max_bytes is None else max_bytes)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from None

    def head(self, key: str) -> ObjectInfo | None:
        """See `ArtifactStore.head`. The size is the directory's word; reading checks it."""
        info = self._entries.get(checked_key(key))
        return None if info is None else ObjectInfo(size_bytes=info.file_size)

    def keys(self, prefix: str) -> Iterator[str]:
        """See `ArtifactStore.keys`."""
        return iter(sorted(name for name in self._entries if name.startswith(prefix)))

    def put(self, key: str, data: bytes) -> None:
        """Refused."""
        self._refuse()

    def put_file(self, key: str, path: Path, *, sha256: str | None = None) -> str:
        """Refused."""
        self._refuse()

    def delete(self, key: str) -> None:
        """Refused."""
        self._refuse()

    def unfinished(self, prefix: str = "") -> Iterator[UnfinishedUpload]:
        """None: nothing is ever written."""
        return iter(())

    def discard(self, upload: UnfinishedUpload) -> None:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreError(f"{self._path.name} is a bundle: it can only be read")

    def _check_entry(self, info: zipfile.ZipInfo) -> None:
        try:
            checked_key(info.filename)
        except StoreError as error:
            _malformed(self._path, str(error))
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _malformed(self._path, f"{info.filename} is compressed in another way than deflate")
        if info.extra:
            _malformed(self._path, f"{info.filename} has an extra field, as zip64 entries do")
        if info.flag_bits & 0x1:
            _malformed(self._path, f"{info.filename} is encrypted")

    def _run(self) -> RunLayout:
        manifests = [name for name in self._entries if name.endswith(f"/{MANIFEST}")]
        parts = manifests[0].split("/") if len(manifests) == 1 else []
        if len(parts) != 5 or (parts[0], parts[2]) != ("projects", "runs"):
            _malformed(self._path, "it does not hold exactly one run's manifest")
        try:
            return RunLayout(parts[1], parts[3])
        except ConfigError as error:
            _malformed(self._path, str(error))

    def _copy(self, key: str, target: BinaryIO, max_bytes: int) -> None:
        info = self._entries.get(checked_key(key))
        if info is None:
            raise ArtifactNotFoundError(f"{self._path.name} has no object {key}")
        too_large = f"{key} has more than the {max_bytes} bytes expected"
        if info.file_size > max_bytes:
            raise ObjectTooLargeError(too_large)
        left = max_bytes
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(info) as source:
                while block := source.read(_BLOCK_BYTES):
                    left -= len(block)
                    if left < 0:
                        raise ObjectTooLargeError(too_large)
                    target.write(block)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            ValueError,
            NotImplementedError,
            RuntimeError,
            struct.error,
        ) as error:
            _malformed(self._path, f"{key}: {error}")


def _check_end(path: Path, file: BinaryIO) -> None:
    """Bound the directory by the record at the file's end, before anything parses it."""
    size_bytes = file.seek(0, io.SEEK_END)
    if not _END.size <= size_bytes <= MAX_BUNDLE_BYTES:
        _malformed(path, f"{size_bytes} bytes; a bundle has {_END.size} to {MAX_BUNDLE_BYTES}")
    file.seek(-min(size_bytes, _END.size + _ZIP64_LOCATOR_BYTES), io.SEEK_END)
    tail = file.read()
    signature, disk, first_disk, here, total, directory_bytes, offset, comment = _END.unpack(
        tail[-_END.size :]
    )
    if signature != _END_SIGNATURE or comment or disk or first_disk or here != total:
        _malformed(path, "it does not end as a plain zip file does")
    if tail.startswith(_ZIP64_LOCATOR) or offset + directory_bytes + _END.size != size_bytes:
        _malformed(path, "zip64, or bytes that belong to no entry")
    if total > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
        _malformed(path, f"{total} entries in {directory_bytes} bytes are too many")
    file.seek(0)


def _listed(manifest: Manifest, name: str) -> ArtifactRef:
    ref = manifest.artifacts.get(name)
    if ref is None:
        raise StoreError(f"the manifest of run {manifest.run_id} lists no {name}")
    return ref


def _malformed(path: Path, problem: str) -> NoReturn:
    raise VerificationError(
        f"{path.name} is not a bundle: {problem[:300]}", subject=path.name, code="bundle"
    )

"""This machine's cache of compiled circuits and keys, addressed by content.

A circuit is named by (chunk model, settings, ezkl version); its keys by (circuit, SRS). Verifying
and proving keys are deterministic in those, the compiled circuit is not, so the compiled file
never takes part in a name. An entry is a folder made under a lock, in a temporary folder that is
renamed at the end: it is whole or absent. Every read re-hashes what it returns; an entry whose
bytes changed is set aside as `*.corrupt` and made again.

Proving keys are large (1.3 to 2.3 GB for 2^16 and 2^17 rows). After keys have been made, those that
were used least recently go until all fit the cap, but none that a process still holds
(`CachedKeys`).

What is in here was made on this machine. Keys that came from a store never enter it (they stay in
the cache of stored objects, see `keyindex`), because a verifier takes the keys it finds here for
those it would make.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from zkml_ray.canonical import document_digest, file_sha256, sha256_hex
from zkml_ray.circuits import backend
from zkml_ray.config import cache_dir, keys_max_bytes
from zkml_ray.pins import Pin, claimed

_INDEX = "digests.json"
_LOCK = ".lock"
_CORRUPT = ".corrupt"
_TEMPORARY = ".tmp-"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedCircuit:
    """A compiled circuit on disk.

    Attributes:
        name: Digest of (chunk model, settings, ezkl version).
        onnx: The chunk model.
        compiled: ezkl's compiled circuit.
        settings: The canonical settings file.
    """

    name: str
    onnx: Path
    compiled: Path
    settings: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedKeys:
    """A key pair on disk, which stays there at least as long as this object lives.

    Attributes:
        vk: Verifying key file.
        pk: Proving key file (30 MB to several GB).
        vk_sha256: Digest of the verifying key.
        pk_sha256: Digest of the proving key.
        made: Whether this call made it (False: it was in the cache).
        pin: What keeps it from being evicted from the key cache.
    """

    vk: Path
    pk: Path
    vk_sha256: str
    pk_sha256: str
    made: bool
    pin: Pin | None = field(default=None, repr=False, compare=False)


def circuit_name(onnx_sha256: str, settings_sha256: str) -> str:
    """The name of a circuit: digest of (chunk model, settings, ezkl version)."""
    return document_digest(
        {"ezkl": backend.EZKL_VERSION, "onnx": onnx_sha256, "settings": settings_sha256}
    )


def keys_name(circuit: str, srs_sha256: str) -> str:
    """The name of a circuit's keys: digest of (circuit, SRS)."""
    return document_digest({"circuit": circuit, "srs": srs_sha256})


class KeyCache:
    """Compiled circuits and keys below one folder."""

    def __init__(self, root: Path | None = None, *, keys_bytes: int | None = None) -> None:
        """Use a cache folder, which is created when something is made.

        Args:
            root: The folder; default: ZKML_RAY_CACHE.
            keys_bytes: Largest size of all keys; default: ZKML_RAY_KEYS_MAX_BYTES, else half of
                what the disk could give them.
        """
        self._root = root or cache_dir()
        self._keys = self._root / "keys"
        self._pins = self._root / "pins"
        self._keys_bytes = keys_max_bytes() if keys_bytes is None else keys_bytes

    def circuit(self, onnx: bytes, settings: bytes) -> CachedCircuit:
        """The compiled circuit of a chunk model, compiled if it is not there.

        Args:
            onnx: The chunk model's bytes.
            settings: Its canonical settings.

        Raises:
            BackendError: ezkl cannot compile it.
        """
        name = circuit_name(sha256_hex(onnx), sha256_hex(settings))

        def make(folder: Path) -> None:
            (folder / "chunk.onnx").write_bytes(onnx)
            (folder / "settings.json").write_bytes(settings)
            backend.compile_circuit(
                folder / "chunk.onnx", folder / "settings.json", folder / "circuit.ezkl"
            )

        folder, _ = self.entry("circuits", name, make)
        return CachedCircuit(
            name=name,
            onnx=folder / "chunk.onnx",
            compiled=folder / "circuit.ezkl",
            settings=folder / "settings.json",
        )

    def keys(self, circuit: CachedCircuit, srs_path: Path, srs_sha256: str) -> CachedKeys:
        """The keys of a circuit under an SRS, made if they are not there.

        Args:
            circuit: The circuit.
            srs_path: SRS file of the circuit's logrows.
            srs_sha256: Its digest, already checked against the file.

        Raises:
            BackendError: ezkl cannot make the keys.
        """
        name = keys_name(circuit.name, srs_sha256)
        pin = Pin(self._pins, name)

        def make(folder: Path) -> None:
            backend.setup_keys(circuit.compiled, srs_path, folder / "vk.key", folder / "pk.key")

        if not (self._keys / name).exists():
            self._evict()  # the disk may have become fuller since keys were made here
        folder, made = self.entry("keys", name, make)
        os.utime(folder)
        if made:
            self._evict()
        return _keys(folder, pin, made=made)

    def made_keys(self, circuit: CachedCircuit, srs_sha256: str) -> CachedKeys | None:
        """The keys that this machine made of a circuit under an SRS, or None; makes nothing."""
        name = keys_name(circuit.name, srs_sha256)
        folder = self._keys / name
        if not folder.exists():
            return None
        pin = Pin(self._pins, name)
        with FileLock(f"{folder}{_LOCK}"):
            if not _intact(folder):
                return None
            os.utime(folder)
            return _keys(folder, pin, made=False)

    def entry(self, kind: str, name: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """A folder of the cache, made if it is not there whole.

        Args:
            kind: Its parent folder.
            name: What its content follows from.
            make: Fills a folder with files.

        Returns:
            The folder, and whether this call made it.
        """
        parent = self._root / kind
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / name
        aside = folder.with_suffix(_CORRUPT)
        with FileLock(f"{folder}{_LOCK}"):
            if folder.exists():
                if _intact(folder):
                    return folder, False
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
            temporary = parent / f"{_TEMPORARY}{name}"
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
            temporary.mkdir()
            try:
                make(temporary)
                index = {file.name: file_sha256(file) for file in sorted(temporary.iterdir())}
                (temporary / _INDEX).write_text(json.dumps(index))
                temporary.replace(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return folder, True

    def _evict(self) -> None:
        """Let go of keys that nobody holds, least recently used first, until all fit the cap."""
        self._keys.mkdir(parents=True, exist_ok=True)
        sizes = {path: _size(path) for path in self._keys.iterdir() if path.is_dir()}
        cap = self._keys_bytes
        if cap is None:
            cap = (shutil.disk_usage(self._keys).free + sum(sizes.values())) // 2
        excess = sum(sizes.values()) - cap
        for path in sorted(sizes, key=_used_ns):
            if excess <= 0:
                return
            name = path.name.removeprefix(_TEMPORARY).removesuffix(_CORRUPT)
            with claimed(self._pins, name, self._keys / f"{name}{_LOCK}") as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)
                    excess -= sizes[path]


def _size(folder: Path) -> int:
    """Bytes of a folder's files; of one that is evicted meanwhile, what was seen."""
    size = 0
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            size += path.stat().st_size
    return size


def _used_ns(folder: Path) -> int:
    """When a folder was used last; at the very beginning if it is gone."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _keys(folder: Path, pin: Pin, *, made: bool) -> CachedKeys:
    index = json.loads((folder / _INDEX).read_text())
    return CachedKeys(
        vk=folder / "vk.key",
        pk=folder / "pk.key",
        vk_sha256=index["vk.key"],
        pk_sha256=index["pk.key"],
        made=made,
        pin=pin,
    )


def _intact(folder: Path) -> bool:
    try:
        index: dict[str, str] = json.loads((folder / _INDEX).read_text())
        # An index that names nothing vouches for nothing.
        return bool(index) and all(
            file_sha256(folder / name) == digest for name, digest in index.items()
        )
    except (OSError, ValueError):
        return False

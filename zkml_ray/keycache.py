"""This machine's cache of compiled circuits and keys, addressed by content.

A circuit is named by (chunk model, settings, ezkl version); its keys by (circuit, SRS). Verifying
and proving keys are deterministic in those, the compiled circuit is not, so the compiled file
never takes part in a name. An entry is a folder made under a lock, in a temporary folder that is
renamed at the end: it is whole or absent. Every read re-hashes what it returns; an entry whose
bytes changed is set aside as `*.corrupt` and made again.

What is in here was made on this machine. Keys that came from a store never enter it (they stay in
the cache of stored objects, see `zkml_ray.keyindex`), because a verifier takes the keys it finds
here for those it would make.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from zkml_ray import backend
from zkml_ray.canonical import document_digest, file_sha256, sha256_hex
from zkml_ray.config import cache_dir

_INDEX = "digests.json"


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
    """A key pair on disk.

    Attributes:
        vk: Verifying key file.
        pk: Proving key file (30 MB to several GB).
        vk_sha256: Digest of the verifying key.
        pk_sha256: Digest of the proving key.
        made: Whether this call made it (False: it was in the cache).
    """

    vk: Path
    pk: Path
    vk_sha256: str
    pk_sha256: str
    made: bool


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

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or cache_dir()

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

        def make(folder: Path) -> None:
            backend.setup_keys(circuit.compiled, srs_path, folder / "vk.key", folder / "pk.key")

        folder, made = self.entry("keys", name, make)
        return _keys(folder, made=made)

    def made_keys(self, circuit: CachedCircuit, srs_sha256: str) -> CachedKeys | None:
        """The keys that this machine made of a circuit under an SRS, or None; makes nothing."""
        folder = self._root / "keys" / keys_name(circuit.name, srs_sha256)
        if not folder.exists():
            return None
        with FileLock(str(folder) + ".lock"):
            return _keys(folder, made=False) if _intact(folder) else None

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
        with FileLock(str(folder) + ".lock"):
            if folder.exists():
                if _intact(folder):
                    return folder, False
                shutil.rmtree(folder.with_suffix(".corrupt"), ignore_errors=True)
                folder.rename(folder.with_suffix(".corrupt"))
            temporary = Path(tempfile.mkdtemp(prefix=f"{name[:12]}-", dir=parent))
            try:
                make(temporary)
                index = {file.name: file_sha256(file) for file in sorted(temporary.iterdir())}
                (temporary / _INDEX).write_text(json.dumps(index))
                temporary.replace(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return folder, True


def _keys(folder: Path, *, made: bool) -> CachedKeys:
    index = json.loads((folder / _INDEX).read_text())
    return CachedKeys(
        vk=folder / "vk.key",
        pk=folder / "pk.key",
        vk_sha256=index["vk.key"],
        pk_sha256=index["pk.key"],
        made=made,
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

"""Structured reference strings, one file per logrows.

ezkl can shrink a larger SRS, but does so on every call (25 s from 2^19 to 2^15), so each size has
its own file. A file is "ceremony" when its SHA-256 is the public ceremony's for that size; a
generated one is "insecure", because whoever generated it can forge proofs, and is named so in
every plan, manifest and verdict.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock

from zkml_ray.canonical import file_sha256, sha256_hex
from zkml_ray.circuits import backend
from zkml_ray.circuits.srs_digests import CEREMONY_SHA256
from zkml_ray.config import cache_dir, srs_dir
from zkml_ray.errors import ConfigError
from zkml_ray.schema.plan import SrsPin

_HEADER_BYTES: Final = 4
_G1_BYTES: Final = 64
_G2_BYTES: Final = 128

VERIFIER_SRS_BYTES: Final = _HEADER_BYTES + 2 * _G1_BYTES + 2 * _G2_BYTES
"""Size of what `verifier_srs` returns."""


def srs_bytes(logrows: int) -> int:
    """Size of the SRS file of one size: logrows, 2 x 2^logrows points of G1, two of G2."""
    return _HEADER_BYTES + 2 * (_G1_BYTES << logrows) + 2 * _G2_BYTES


def verifier_srs(path: Path, logrows: int) -> bytes:
    """The part of an SRS that checking a proof takes: [1]_1, [1]_2 and [tau]_2.

    It is an SRS file of size 2^0 itself, so `ezkl.verify` reads it in place of the whole file.

    Args:
        path: SRS file of halo2's KZG parameters, raw points.
        logrows: log2 of its size.

    Raises:
        ConfigError: It is not an SRS file of this size.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        size_bytes = file.seek(0, 2)
        if size_bytes != srs_bytes(logrows) or header != logrows.to_bytes(4, "little"):
            raise ConfigError(
                f"{path.name} is no SRS of logrows {logrows}: {size_bytes} bytes, expected "
                f"{srs_bytes(logrows)}; fetch it again with ezkl.get_srs"
            )
        file.seek(_HEADER_BYTES)
        generator = file.read(_G1_BYTES)
        file.seek(-2 * _G2_BYTES, 2)
        return bytes(4) + 2 * generator + file.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class SrsFile:
    """An SRS on this machine's disk.

    Attributes:
        logrows: log2 of its size.
        path: The file.
        sha256: Its digest, computed from the file now.
        trust: "ceremony" or "insecure".
    """

    logrows: int
    path: Path
    sha256: str
    trust: Literal["insecure", "ceremony"]

    def pin(self) -> SrsPin:
        """The plan's record of this file."""
        return SrsPin(
            logrows=self.logrows,
            sha256=self.sha256,
            verifier_sha256=sha256_hex(verifier_srs(self.path, self.logrows)),
            trust=self.trust,
        )


def trust_of(logrows: int, sha256: str) -> Literal["insecure", "ceremony"]:
    """What a digest is worth: "ceremony" exactly when it is the public ceremony's."""
    return "ceremony" if CEREMONY_SHA256.get(logrows) == sha256 else "insecure"


def ensure_srs(logrows: int, *, folder: Path | None = None) -> SrsFile:
    """Get the SRS of one size, generating an insecure one where no ceremony file is given.

    Args:
        logrows: log2 of the size.
        folder: Folder of ceremony files named kzg<logrows>.srs; default: ZKML_RAY_SRS_DIR.

    Raises:
        ConfigError: The folder has no file of this size, or its digest is not the ceremony's.
    """
    folder = folder or srs_dir()
    if folder is not None:
        return _ceremony(logrows, folder)
    path = _insecure_path(logrows)
    root = path.parent
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path) + ".lock"):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=root) as temporary:
                made = Path(temporary) / path.name
                backend.generate_insecure_srs(made, logrows)
                made.replace(path)
    return SrsFile(logrows=logrows, path=path, sha256=file_sha256(path), trust="insecure")


def own_srs(pin: SrsPin) -> Path | None:
    """This machine's SRS file of a pinned digest, or None; generates nothing."""
    folder = srs_dir()
    candidates = [] if folder is None else [folder / f"kzg{pin.logrows}.srs"]
    candidates.append(_insecure_path(pin.logrows))
    for path in candidates:
        if path.is_file() and file_sha256(path) == pin.sha256:
            return path
    return None


def _insecure_path(logrows: int) -> Path:
    return cache_dir() / "srs" / f"insecure-kzg{logrows}.srs"


def _ceremony(logrows: int, folder: Path) -> SrsFile:
    path = folder / f"kzg{logrows}.srs"
    if not path.is_file():
        raise ConfigError(
            f"{folder} has no kzg{logrows}.srs; fetch it with ezkl.get_srs(logrows={logrows}), or "
            "unset ZKML_RAY_SRS_DIR to use a generated, insecure SRS"
        )
    digest = file_sha256(path)
    if trust_of(logrows, digest) != "ceremony":
        raise ConfigError(
            f"{path.name} has SHA-256 {digest}, which is not the public ceremony's for logrows "
            f"{logrows}; fetch it again with ezkl.get_srs"
        )
    return SrsFile(logrows=logrows, path=path, sha256=digest, trust="ceremony")

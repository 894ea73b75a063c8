"""SRS files: a ceremony's by digest, anything else insecure and called so."""

from __future__ import annotations

from pathlib import Path

import pytest

from zkml_ray.circuits.srs import ensure_srs, trust_of
from zkml_ray.circuits.srs_digests import CEREMONY_SHA256
from zkml_ray.errors import ConfigError

LOGROWS = 6


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_srs_without_a_ceremony_folder_is_generated_once_and_called_insecure(cache: Path) -> None:
    first, second = ensure_srs(LOGROWS), ensure_srs(LOGROWS)
    assert first == second
    assert first.trust == first.pin().trust == "insecure"
    assert first.path.is_relative_to(cache)
    assert "insecure" in first.path.name


def test_srs_generated_on_two_machines_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for machine in ("a", "b"):
        monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / machine))
        digests.add(ensure_srs(LOGROWS).sha256)
    assert len(digests) == 2


def test_srs_folder_without_this_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kzg6\.srs"):
        ensure_srs(LOGROWS, folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an SRS", bytes(4096)])
def test_srs_file_with_another_digest_than_the_ceremony_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "kzg6.srs").write_bytes(content)
    with pytest.raises(ConfigError, match=r"not the public ceremony's.*logrows 6"):
        ensure_srs(LOGROWS, folder=tmp_path)


def test_srs_generated_and_passed_off_as_the_ceremonys_is_refused(
    cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ceremony"
    folder.mkdir()
    (folder / "kzg6.srs").write_bytes(ensure_srs(LOGROWS).path.read_bytes())
    with pytest.raises(ConfigError, match="ceremony"):
        ensure_srs(LOGROWS, folder=folder)


def test_srs_folder_from_the_environment_is_used_and_never_falls_back(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKML_RAY_SRS_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="ZKML_RAY_SRS_DIR"):
        ensure_srs(LOGROWS)
    assert not cache.exists()


def test_trust_is_ceremony_exactly_for_the_digest_of_that_size() -> None:
    for logrows, digest in CEREMONY_SHA256.items():
        assert trust_of(logrows, digest) == "ceremony"
        assert trust_of(logrows + 1, digest) == "insecure"
        assert trust_of(logrows, "0" * 64) == "insecure"


def test_ceremony_digests_are_distinct_sha256() -> None:
    digests = list(CEREMONY_SHA256.values())
    assert len(set(digests)) == len(digests)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)

"""The node-local cache: whole or absent, checked at every read, capped, safe between processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zkml_ray.canonical import file_sha256
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.errors import ArtifactNotFoundError, ConfigError, DigestMismatchError, StoreError
from zkml_ray.run.journal import Journal
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores import LocalStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.objectcache import ObjectCache


class CountingStore(LocalStore):
    """Counts downloads, and spoils the first `bad` of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.downloads, self.bad = 0, 0

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> None:
        self.downloads += 1
        super().get_file(key, path, max_bytes=max_bytes)
        if self.bad:
            self.bad -= 1
            path.write_bytes(path.read_bytes()[:-1])


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def put(store: LocalStore, number: int, size: int = 1000) -> ArtifactRef:
    return store.store(f"object/{number}", bytes([number]) * size)


def cached(root: Path) -> set[str]:
    return {path.name for path in (root / "objects").iterdir() if path.suffix != ".lock"}


def test_second_read_needs_no_download(store: CountingStore, root: Path) -> None:
    ref = put(store, 1)
    for _ in range(3):
        with ObjectCache(store, root) as cache:
            assert cache.read(ref) == bytes([1]) * 1000
    assert store.downloads == 1


def test_changed_copy_is_fetched_again(store: CountingStore, root: Path) -> None:
    ref = put(store, 1)
    cache = ObjectCache(store, root)
    path = cache.path(ref)
    for damage in (b"", b"\x01" * 999 + b"\x02", b"\x01" * 1001):
        path.write_bytes(damage)
        assert cache.read(ref) == bytes([1]) * 1000
    assert store.downloads == 4


def test_wrong_bytes_once_are_fetched_once_more(store: CountingStore, root: Path) -> None:
    ref = put(store, 1)
    store.bad = 1
    assert ObjectCache(store, root).read(ref) == bytes([1]) * 1000
    assert store.downloads == 2 and not (root / "quarantine").exists()


def test_wrong_bytes_twice_are_quarantined_and_named(store: CountingStore, root: Path) -> None:
    ref = put(store, 1)
    store.bad = 2
    cache = ObjectCache(store, root)
    with pytest.raises(DigestMismatchError, match="object/1") as raised:
        cache.path(ref)
    got = hashlib.sha256(bytes([1]) * 999).hexdigest()
    assert raised.value.expected == ref.sha256 and raised.value.got == got
    assert [path.name for path in (root / "quarantine").iterdir()] == [f"{ref.sha256}.{got}"]
    assert cached(root) == set()
    assert cache.read(ref) == bytes([1]) * 1000  # the store has recovered


def test_quarantine_keeps_the_newest_few(store: CountingStore, root: Path) -> None:
    for number in range(12):
        ref = put(store, number)
        store.bad = 2
        with pytest.raises(DigestMismatchError):
            ObjectCache(store, root).path(ref)
    assert len(list((root / "quarantine").iterdir())) == 8


def test_missing_object_leaves_nothing(store: CountingStore, root: Path) -> None:
    ref = put(store, 1)
    store.delete(ref.key)
    with pytest.raises(ArtifactNotFoundError):
        ObjectCache(store, root).path(ref)
    assert cached(root) == set()


def test_least_recently_used_goes_first(store: CountingStore, root: Path) -> None:
    refs = [put(store, number) for number in range(4)]
    for number, ref in enumerate(refs[:3]):
        with ObjectCache(store, root, max_bytes=3000) as cache:
            os.utime(cache.path(ref), (number + 1, number + 1))
    with ObjectCache(store, root, max_bytes=3000) as cache:
        cache.path(refs[0])  # used again: now the newest
        cache.path(refs[3])
    assert cached(root) == {refs[0].sha256, refs[2].sha256, refs[3].sha256}


def test_pinned_object_is_never_evicted(store: CountingStore, root: Path) -> None:
    refs = [put(store, number) for number in range(6)]
    holder = ObjectCache(store, root, max_bytes=2000)
    held = holder.path(refs[0])
    for ref in refs[1:]:
        with ObjectCache(store, root, max_bytes=2000) as other:
            other.path(ref)
    assert held.read_bytes() == bytes([0]) * 1000
    assert len(cached(root)) == 2
    holder.close()
    with ObjectCache(store, root, max_bytes=1000) as other:
        other.path(refs[1])
    assert cached(root) == {refs[1].sha256}


def test_object_larger_than_the_cap_is_still_fetched(store: CountingStore, root: Path) -> None:
    small, large = put(store, 1, 100), put(store, 2, 5000)
    with ObjectCache(store, root, max_bytes=1000) as cache:
        cache.path(small)
    assert ObjectCache(store, root, max_bytes=1000).read(large) == bytes([2]) * 5000
    assert cached(root) == {large.sha256}


def test_leftover_of_a_killed_fetch_is_evicted(store: CountingStore, root: Path) -> None:
    ref = put(store, 1)
    ObjectCache(store, root).path(ref)
    (root / "objects" / f".tmp-{'0' * 64}").write_bytes(bytes(5000))
    with ObjectCache(store, root, max_bytes=2500) as cache:
        cache.path(put(store, 2))
    assert f".tmp-{'0' * 64}" not in cached(root)


def test_threads_and_processes_share_one_download(store: CountingStore, root: Path) -> None:
    ref = put(store, 1, 300_000)
    threads = [threading.Thread(target=ObjectCache(store, root).read, args=(ref,)) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.downloads == 1
    code = f"""
from pathlib import Path
from zkml_ray.errors import StoreError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores import open_store
from zkml_ray.stores.objectcache import ObjectCache
ref = ArtifactRef(key={ref.key!r}, sha256={ref.sha256!r}, size_bytes={ref.size_bytes})
good = 0
for _ in range(20):
    with ObjectCache(open_store({store.url!r}), Path({str(root)!r}), max_bytes=1) as cache:
        try:
            assert cache.read(ref) == bytes([1]) * 300_000
            good += 1
        except StoreError:  # the sibling damaged the file between the check and the read
            pass
    (Path({str(root)!r}) / "objects" / ref.sha256).write_bytes(b"damaged")
raise SystemExit(0 if good else 3)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert ObjectCache(store, root).read(ref) == bytes([1]) * 300_000


def test_unusable_cap_is_a_configuration_error(
    store: CountingStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("much", "-1", "0", "inf", "nan"):
        monkeypatch.setenv("ZKML_RAY_CACHE_MAX_BYTES", text)
        with pytest.raises(ConfigError, match="ZKML_RAY_CACHE_MAX_BYTES"):
            ObjectCache(store, root)


def test_unwritable_cache_folder_is_a_store_error(store: CountingStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="ZKML_RAY_CACHE"):
        ObjectCache(store, tmp_path / "file" / "cache").path(put(store, 1))


def test_srs_of_a_run_that_goes_on_stays_while_others_fetch(
    store: CountingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZKML_RAY_CACHE_MAX_BYTES", "1")
    made = ensure_srs(6)
    layout = RunLayout("default", "goes-on")
    Journal(store, layout).keep_srs([made])
    journal = Journal(store, layout)
    found = journal.srs([6])
    assert found is not None
    with ObjectCache(store) as other:
        other.path(put(store, 1))
    assert found[6].path != made.path
    assert file_sha256(found[6].path) == made.sha256

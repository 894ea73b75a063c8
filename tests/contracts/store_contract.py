"""The store's contract as tests. A backend inherits it and provides `store`."""

from __future__ import annotations

import hashlib
import pickle
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zkml_ray.errors import (
    ArtifactNotFoundError,
    DigestMismatchError,
    ObjectTooLargeError,
    StoreError,
)
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores import ArtifactStore, open_store

KEY = "projects/p/runs/r/proofs/chunk-000.json"


def ref_of(key: str, data: bytes) -> ArtifactRef:
    return ArtifactRef(key=key, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


class StoreContract:
    """Inherit as `class TestX(StoreContract)` with a fixture `store` that is empty."""

    large = 6 << 20
    """A size that the backend moves in parts, if it knows parts."""

    @pytest.fixture
    def store(self) -> ArtifactStore:
        """Every backend's own; this one is reached only by a subclass that forgot it."""
        raise NotImplementedError

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 300], ids=["0", "1", "76800"])
    def test_put_then_get_returns_the_bytes(self, store: ArtifactStore, data: bytes) -> None:
        store.put(KEY, data)
        assert store.get(KEY, max_bytes=len(data)) == data
        assert store.size(KEY) == len(data)

    def test_large_object_by_file_round_trips(self, store: ArtifactStore, tmp_path: Path) -> None:
        data = bytes(range(251)) * (self.large // 251 + 1)
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        assert store.put_file(KEY, source, sha256=digest) == digest
        store.get_file(KEY, target)
        assert target.read_bytes() == data
        assert store.get(KEY, max_bytes=len(data)) == data

    def test_large_object_by_bytes_round_trips(self, store: ArtifactStore) -> None:
        data = bytes(range(253)) * (self.large // 253 + 1)
        ref = store.store(KEY, data)
        assert store.read_verified(ref) == data

    @pytest.mark.parametrize("size", [10, 6 << 20])
    def test_put_file_of_other_bytes_than_named_stores_nothing(
        self, store: ArtifactStore, tmp_path: Path, size: int
    ) -> None:
        (tmp_path / "file").write_bytes(bytes(size))
        with pytest.raises(DigestMismatchError, match="changed before it was stored"):
            store.put_file(KEY, tmp_path / "file", sha256="0" * 64)
        assert store.size(KEY) is None
        assert list(store.keys("")) == []

    def test_overwrite_returns_the_newest(self, store: ArtifactStore) -> None:
        store.put(KEY, b"old")
        store.put(KEY, b"newer")
        assert store.get(KEY, max_bytes=100) == b"newer"

    def test_missing_object_is_named(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(KEY, b"x")
        with pytest.raises(ArtifactNotFoundError, match="a/missing"):
            store.get("a/missing", max_bytes=1)
        with pytest.raises(ArtifactNotFoundError, match="a/missing"):
            store.get_file("a/missing", tmp_path / "file")
        assert store.size("a/missing") is None
        assert store.head("a/missing") is None

    def test_larger_object_than_allowed_is_refused(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        store.put(KEY, b"12345")
        with pytest.raises(ObjectTooLargeError):
            store.get(KEY, max_bytes=4)
        with pytest.raises(ObjectTooLargeError):
            store.get_file(KEY, tmp_path / "file", max_bytes=4)

    def test_keys_lists_by_prefix_sorted(self, store: ArtifactStore) -> None:
        names = ["a/b", "a/b.c", "a/b/c", "ab/c", "b/a"]
        names.remove("a/b")  # a folder cannot have both a/b and a/b/c
        for name in reversed(names):
            store.put(name, b"x")
        assert list(store.keys("")) == sorted(names)
        assert list(store.keys("a/")) == ["a/b.c", "a/b/c"]
        assert list(store.keys("a/b")) == ["a/b.c", "a/b/c"]
        assert list(store.keys("nothing/here")) == []

    def test_delete_removes_and_is_repeatable(self, store: ArtifactStore) -> None:
        store.put(KEY, b"x")
        store.delete(KEY)
        store.delete(KEY)
        assert store.size(KEY) is None
        assert list(store.keys("")) == []

    @pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", ".a", "a/", "a b", "é"])
    def test_unusable_key_is_refused_everywhere(
        self, store: ArtifactStore, tmp_path: Path, key: str
    ) -> None:
        calls = (
            lambda: store.put(key, b""),
            lambda: store.get(key, max_bytes=1),
            lambda: store.get_file(key, tmp_path / "f"),
            lambda: store.size(key),
            lambda: store.delete(key),
        )
        for call in calls:
            with pytest.raises(StoreError, match="is no object key"):
                call()

    def test_store_shared_writes_once(self, store: ArtifactStore, tmp_path: Path) -> None:
        data = b"shared"
        (tmp_path / "file").write_bytes(data)
        ref = ref_of("projects/p/artifacts/models/0", data)
        assert store.store_shared(ref.key, data) == ref
        assert store.store_shared_file(ref.key, tmp_path / "file", ref.sha256) == ref
        assert store.store_file("projects/p/runs/r/f", tmp_path / "file").sha256 == ref.sha256
        assert list(store.keys("projects/p/artifacts/")) == [ref.key]

    def test_store_shared_over_a_partial_object_repairs_it(self, store: ArtifactStore) -> None:
        store.put(KEY, b"sha")
        ref = store.store_shared(KEY, b"shared")
        assert store.read_verified(ref) == b"shared"

    @pytest.mark.parametrize("found", [b"datb", b"dat", b"data+", b""])
    def test_changed_object_never_reaches_the_reader(
        self, store: ArtifactStore, tmp_path: Path, found: bytes
    ) -> None:
        ref = ref_of(KEY, b"data")
        store.put(KEY, found)
        with pytest.raises(DigestMismatchError, match=KEY) as raised:
            store.read_verified(ref)
        assert raised.value.expected == ref.sha256
        with pytest.raises(DigestMismatchError, match=KEY):
            store.fetch_verified(ref, tmp_path / "file")
        assert not (tmp_path / "file").exists()

    def test_reopened_store_is_the_same(self, store: ArtifactStore) -> None:
        store.put(KEY, b"x")
        assert open_store(store.url).get(KEY, max_bytes=1) == b"x"
        assert open_store(store.url).url == store.url
        copy = pickle.loads(pickle.dumps(store))
        assert copy.url == store.url and copy.get(KEY, max_bytes=1) == b"x"

    def test_concurrent_writers_of_one_key_leave_one_whole_object(
        self, store: ArtifactStore
    ) -> None:
        contents = [bytes([n]) * 200_000 for n in range(4)]
        threads = [threading.Thread(target=store.put, args=(KEY, data)) for data in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get(KEY, max_bytes=200_000) in contents

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,  # inherited by several classes
        ],
    )
    @given(
        key=st.from_regex(
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}(/[a-z0-9][A-Za-z0-9._-]{0,8}){0,3}", fullmatch=True
        ),
        data=st.binary(max_size=200),
    )
    def test_any_key_and_bytes_round_trip(
        self, store: ArtifactStore, key: str, data: bytes
    ) -> None:
        # A folder of its own per example: in a folder store no key can be another key's folder.
        key = f"{uuid.uuid4().hex}/{key}"
        store.put(key, data)
        assert store.get(key, max_bytes=200) == data
        assert key in list(store.keys(key))
        store.delete(key)

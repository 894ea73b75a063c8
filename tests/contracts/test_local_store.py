from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.store_contract import KEY, StoreContract
from zkml_ray.errors import StoreError
from zkml_ray.stores import LocalStore, UnfinishedUpload


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store")

    def test_unfinished_write_is_found_and_discarded(self, store: LocalStore) -> None:
        store.put("a/b/c", b"x")
        leftover = Path(store.url.removeprefix("file://")) / "a" / "b" / ".tmp-killed"
        leftover.write_bytes(b"half")
        assert list(store.keys("")) == ["a/b/c"]
        (found,) = store.unfinished("a/")
        store.discard(found)
        assert not leftover.exists() and list(store.unfinished()) == []

    def test_discard_of_an_object_is_refused(self, store: LocalStore) -> None:
        store.put(KEY, b"x")
        (store_root := Path(store.url.removeprefix("file://"))).joinpath(".tmp-x").touch()
        (found,) = store.unfinished()
        for upload_id in (KEY, "../.tmp-x", "a/../.tmp-x"):
            with pytest.raises(StoreError):
                store.discard(UnfinishedUpload(key="", upload_id=upload_id, started=found.started))
        assert store.size(KEY) == 1 and (store_root / ".tmp-x").exists()

    @pytest.mark.parametrize("prefix", ["..", "../", "a/../../b"])
    def test_prefix_that_leads_out_is_refused(self, store: LocalStore, prefix: str) -> None:
        with pytest.raises(StoreError, match="leads out"):
            list(store.keys(prefix))

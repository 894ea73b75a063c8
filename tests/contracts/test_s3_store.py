from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.store_contract import StoreContract
from tests.s3.server import BUCKET, Server, point_to, rclone_server, running
from zkml_ray.stores.s3 import S3Store
from zkml_ray.stores.s3config import S3Options

pytestmark = pytest.mark.s3
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    with running(rclone_server(folder)) as server:
        yield server


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
        point_to(monkeypatch, server.endpoint)
        options = S3Options(deadline_s=10, timeout_s=5, part_bytes=5 << 20)
        return S3Store(f"s3://{BUCKET}/prefix/{next(_numbers)}", options)

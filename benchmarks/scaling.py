"""How proving scales with workers: measured for 1 and 2, simulated beyond.

    python benchmarks/scaling.py --model lenet5 --out FILE [--repeats 3]

Every worker has one prover thread. Strong scaling: one input, more workers. Weak scaling: as many
inputs as workers.

- Measured: `prove_distributed` with 1 and 2 workers (strong), and two such calls side by side, each
  with a worker of its own (weak): that is how a batch is proved today.
- Simulated (`benchmarks.schedule`): the package's own scheduler in virtual time, with the chunk
  times measured at 1 worker (medians). For batches the chunks of all inputs go through one
  coordinator's queue, input after input; nothing in the package does that yet.

What is outside the proving stage (Ray's start, planning, link, verification, store) is measured
and left out of simulated makespans and of both efficiencies; the file names it as `outside_s`.
Simulated figures for 1 and 2 workers stand beside the measured ones, as a check of the simulation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import record
from benchmarks.models.registry import MODELS
from benchmarks.processes import Outcome
from benchmarks.schedule import Task, bound_s, simulate
from benchmarks.steps import Steps, add_arguments, say

MEASURED = (1, 2)
VARIANT = "d1-scaling"
"""Folder of the keys, apart from those of `versus_ezkl.py`, whose plan for one worker differs."""
SIMULATED = (1, 2, 4, 8, 16, 32, 64)


def tasks_of(runs: Sequence[dict[str, Any]]) -> list[Task]:
    """Per chunk, medians over runs of one worker.

    Args:
        runs: `facts` of those runs.
    """
    return [
        Task(
            name=chunk["chunk"],
            witness_s=median(run["witness_s"][chunk["chunk"]] for run in runs),
            work_s=median(
                sum(run["chunks"][index][f"{part}_s"] for part in ("setup", "witness", "prove"))
                for run in runs
            ),
            verify_s=median(run["chunks"][index]["verify_s"] for run in runs),
        )
        for index, chunk in enumerate(runs[0]["chunks"])
    ]


def workers_up_s(runs: Sequence[dict[str, Any]]) -> float:
    """When the worker took its first chunk, after the proving stage began (median over runs)."""
    return median(min(chunk["started_s"] for chunk in run["chunks"]) for run in runs)


def simulated(tasks: Sequence[Task], up_s: float) -> list[dict[str, Any]]:
    """Strong and weak scaling of the given chunks by the simulation.

    Args:
        tasks: The chunks.
        up_s: When the workers are up; the same for any number of them.
    """
    strong_1_s = simulate(tasks, 1, up_s).makespan_s
    longest = max(tasks, key=lambda task: task.work_s)
    rows = []
    for workers in SIMULATED:
        strong_s = simulate(tasks, workers, up_s).makespan_s
        batch = list(tasks) * workers
        weak_s = simulate(batch, workers, up_s).makespan_s
        limit_s, limit = bound_s(tasks, workers)
        batch_limit_s, batch_limit = bound_s(batch, workers)
        rows.append(
            {
                "workers": workers,
                "strong_s": strong_s,
                "strong_speedup": strong_1_s / strong_s,
                "strong_efficiency": strong_1_s / strong_s / workers,
                "strong_bound_s": limit_s,
                "strong_limit": limit if limit != "longest chunk" else f"chunk {longest.name}",
                "weak_s": weak_s,
                "weak_efficiency": strong_1_s / weak_s,
                "weak_bound_s": batch_limit_s,
                "weak_limit": batch_limit,
            }
        )
    return rows


def stage_s(facts: dict[str, Any], stage: str) -> float:
    """Seconds of a stage of a run."""
    found: float = dict(facts["stages"])[stage]
    return found


def measure(steps: Steps, repeats: int) -> dict[str, Any]:
    """Strong runs by turns, then pairs of runs side by side."""
    strong: dict[int, list[Outcome]] = {workers: [] for workers in MEASURED}
    weak: list[tuple[Outcome, Outcome]] = []

    def one(workers: int) -> Outcome:
        found = steps.run("prove", f"d{workers}", folder=steps.folder(VARIANT), threads=1)
        if found.failure:
            raise SystemExit(f"{workers} workers: {found.failure}")
        return found

    for repeat in range(repeats):
        for workers in MEASURED:
            strong[workers].append(one(workers))
            prove_s = stage_s(strong[workers][-1].facts, "prove")
            say(f"{workers} workers, repeat {repeat}: proving takes {prove_s:.2f} s")
        with ThreadPoolExecutor(2) as pair:
            first, second = pair.map(one, (1, 1))
        weak.append((first, second))
        both = [stage_s(found.facts, "prove") for found in (first, second)]
        say(f"two inputs on two workers, repeat {repeat}: {both[0]:.2f} s and {both[1]:.2f} s")
    return {
        "strong": {str(w): [asdict(found) for found in runs] for w, runs in strong.items()},
        "weak": [[asdict(found) for found in runs] for runs in weak],
    }


def evaluate(raw: dict[str, Any]) -> dict[str, Any]:
    """Everything that follows from raw runs."""
    facts = {w: [run["facts"] for run in runs] for w, runs in raw["strong"].items()}
    tasks = tasks_of(facts["1"])
    strong_s = {w: median(stage_s(run, "prove") for run in runs) for w, runs in facts.items()}
    weak_s = median(max(stage_s(found["facts"], "prove") for found in pair) for pair in raw["weak"])
    longest = max(tasks, key=lambda task: task.work_s)
    return {
        "measured": {
            "strong_s": strong_s,
            "strong_efficiency_2": strong_s["1"] / strong_s["2"] / 2,
            "weak_s": {"1": strong_s["1"], "2": weak_s},
            "weak_efficiency_2": strong_s["1"] / weak_s,
            "outside_s": median(
                run["phases"]["prove"]["wall_s"] - stage_s(run["facts"], "prove")
                for run in raw["strong"]["1"]
            ),
        },
        "chunks": [
            {**asdict(task), "kind": kind, "predicted_prove_s": chunk["predicted_prove_s"]}
            for task, kind, chunk in zip(
                tasks, facts["1"][0]["kinds"], facts["1"][0]["chunks"], strict=True
            )
        ],
        "longest_chunk": {"chunk": longest.name, "work_s": longest.work_s},
        "workers_up_s": workers_up_s(facts["1"]),
        "simulated": simulated(tasks, workers_up_s(facts["1"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plan-workers", type=int, default=2, help="workers that the cuts are for")
    add_arguments(parser)
    given = parser.parse_args()
    # One plan for every number of workers, or efficiency would compare different circuits.
    given.options = json.dumps({"workers": given.plan_workers, **json.loads(given.options)})
    steps = Steps.of(MODELS[given.model], given)
    failure = steps.ready_ours(VARIANT)["setup"]["failure"]
    if failure:
        raise SystemExit(f"setup: {failure}")
    raw = measure(steps, given.repeats)
    result = {
        "model": given.model,
        "title": steps.model.title,
        "model_sha256": steps.model_sha256,
        "plan_options": json.loads(steps.options),
        **evaluate(raw),
        "raw": raw,
    }
    record.write(given.out, result)
    print(json.dumps({key: result[key] for key in ("measured", "longest_chunk")}, indent=1))
    for row in result["simulated"]:
        print(row)


if __name__ == "__main__":
    main()

"""How much of its workers' time a batch of inputs spends proving, and what single calls take.

    python benchmarks/many.py --model digits --inputs 32 --workers 2 --out FILE [--single 3]

One `Prover` proves all inputs (`prove_many`); keys are made by a run before it. Per worker, each
chunk is a span that begins with its set-up and ends with its proof; what a worker's time between
the batch's beginning, workers up, and its last proof consists of is printed: proving, set-up and
witness, and nothing. Then `--single` calls of `prove_distributed` on a Ray of their own, with the
same plan and keys.

The simulated makespan is that of the package's own scheduler (`benchmarks.schedule`) with the
chunk times that the batch itself measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import record
from benchmarks.models.registry import MODELS
from benchmarks.schedule import Task, simulate
from zkml_ray import PlanOptions, Prover, Run, prove_distributed
from zkml_ray.events import ChunkMoved, Event, OfRun


def share_of(runs: Sequence[Run], workers: int, from_s: float) -> dict[str, float]:
    """What the workers' time is spent with, from a moment to the last proof.

    Args:
        runs: The batch.
        workers: How many.
        from_s: The moment, in seconds since the Unix epoch.
    """
    chunks = [chunk for run in runs for chunk in run.manifest.chunks]
    last_s = max(chunk.prove.ended_s for chunk in chunks)
    whole_s = workers * (last_s - from_s)

    def inside(started_s: float, ended_s: float) -> float:
        return max(0.0, ended_s - max(from_s, started_s))

    proving = sum(inside(chunk.prove.started_s, chunk.prove.ended_s) for chunk in chunks)
    around = sum(inside(chunk.setup.started_s, chunk.witness.ended_s) for chunk in chunks)
    return {
        "proving": proving / whole_s,
        "setup_and_witness": around / whole_s,
        "idle": 1 - (proving + around) / whole_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--inputs", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--single", type=int, default=3, help="single calls for comparison")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = MODELS[given.model]
    values = model.inputs()
    inputs = [values[index % len(values)][None] for index in range(given.inputs)]
    options = PlanOptions(workers=given.workers)
    witnessed: dict[str, float] = {}

    def heard(event: Event) -> None:
        if isinstance(event, OfRun) and isinstance(event.event, ChunkMoved):
            moved = event.event
            if moved.state == "witnessed" and moved.seconds is not None:
                witnessed[moved.chunk_id] = moved.seconds

    with tempfile.TemporaryDirectory() as store:
        settings: dict[str, Any] = {"store": store, "threads": given.threads, "options": options}
        with Prover(model.path, given.workers, listener=heard, **settings) as prover:
            prover.prove(inputs[0])  # makes the keys
            started_s = time.time()
            runs = prover.prove_many(inputs)
            many_s = time.time() - started_s
        single_s = []
        for _ in range(given.single):
            started = time.time()
            prove_distributed(model.path, given.workers, inputs[0], **settings)
            single_s.append(time.time() - started)
    chunks = [chunk for run in runs for chunk in run.manifest.chunks]
    tasks = [
        Task(
            name=chunk.chunk,
            witness_s=witnessed[chunk.chunk],
            work_s=chunk.prove.ended_s - chunk.setup.started_s,
            verify_s=chunk.verify_s,
        )
        for chunk in chunks
    ]
    measured_s = max(chunk.prove.ended_s for chunk in chunks) - started_s
    simulated_s = simulate(tasks, given.workers).makespan_s
    result: dict[str, Any] = {
        "model": given.model,
        "inputs": given.inputs,
        "workers": given.workers,
        "threads": given.threads,
        "many_s": many_s,
        "per_input_s": many_s / given.inputs,
        "single_s": single_s,
        "throughput_gain": median(single_s) * given.inputs / many_s if single_s else None,
        "share": share_of(runs, given.workers, started_s),
        "makespan_s": measured_s,
        "simulated_s": simulated_s,
        "simulated_over_measured": simulated_s / measured_s,
    }
    record.write(given.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

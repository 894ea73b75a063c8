"""A transformer encoder that one circuit cannot hold: six layers of 384 wide, 12 heads, FFN 1536.

    python benchmarks/big.py --out FILE [--memory 6GiB] [--workers 2] [--layers 6]

1. What one circuit would need: rows and logrows by `ezkl.gen_settings` alone, in a process with a
   time limit, and the memory that measured one-circuit runs of this machine predict
   (benchmarks/results/versus). Nothing is set up. Once with ezkl's default arguments, whose
   Freivalds argument leaves products unproved (docs/adr/0013), and once without it.
2. zkml_ray proves the model under `--memory`. Everything that is done lies in --store, so the same
   command, given again after an interruption of any kind, goes on where it stopped; each session is
   recorded in FILE. For hours in the background: `nohup nice python benchmarks/big.py ... &`.

With --plan-only the model is planned, and the plan's statistics are printed; nothing is proved.

With fewer --layers the file says so, and its `extrapolated` block multiplies measured figures of
those layers; it is no measurement of six.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx

from benchmarks import record
from benchmarks.facts import circuits_of, stored_forecast, stored_plan
from benchmarks.models.encoder import MINI_LM, EncoderSize, build_encoder
from benchmarks.processes import PhaseLog, watch
from benchmarks.steps import OPTIONS, ROOT, merged_options, say
from benchmarks.tuning import columns_needed, sizes_of
from zkml_ray import verify
from zkml_ray.api import prepare, resume
from zkml_ray.chunking.load import load_model
from zkml_ray.config import checked_threads, parse_size
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.profiles import load_profile
from zkml_ray.errors import RunExistsError
from zkml_ray.events import ChunkMoved, Event, PlanReady, Warned
from zkml_ray.schema.manifest import ChunkRecord
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.openings import read_manifest

RESULTS = ROOT / "benchmarks" / "results" / "versus"
FULL_LAYERS = MINI_LM.layers

ONE_CIRCUIT = {"size": "one_circuit", "size-sound": "one_sound_circuit"}
"""The block of the file that each sizing step fills."""

INTERRUPTED = {"failure": "interrupted", "wall_s": 0.0, "largest_bytes": 0}
"""What the file says of a session until it ends by itself."""


def one_circuit(model: Path, log: PhaseLog, *, sound: bool) -> None:
    """Size the model as one stock circuit, with default arguments.

    Args:
        model: The model.
        log: Receives the sizes.
        sound: Without Freivalds' argument.
    """
    import ezkl

    arguments = ezkl.PyRunArgs()
    arguments.disable_freivalds = sound
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as name, log.phase("size"):
        path = Path(name) / "settings.json"
        ezkl.gen_settings(str(model), str(path), arguments)
        log.facts |= sizes_of(json.loads(path.read_text()))
    log.facts["logrows"] = (log.facts["num_rows"] + 8 - 1).bit_length()


def predicted_memory(sizes: dict[str, Any], results: Path) -> dict[str, Any]:
    """What measured one-circuit runs predict for a larger one.

    Their peak while proving grows with the slots that are allocated; the prediction is the smallest
    and the largest ratio seen, times this circuit's slots.

    Args:
        sizes: Of the circuit (`sizes_of`, with the logrows it needs).
        results: Folder of `versus_ezkl.py`'s files.
    """
    ratios = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        found = result["summary"].get("a")
        facts = result["variants"].get("a", {}).get("settings", {}).get("facts", {})
        if found and "sizes" in facts:
            ratios[result["model"]] = found["peak_bytes"] / _slots(facts["sizes"][0])
    slots = _slots(sizes)
    return {
        "allocated_slots": slots,
        "measured_bytes_per_slot": ratios,
        "predicted_bytes": [slots * min(ratios.values()), slots * max(ratios.values())]
        if ratios
        else None,
    }


def _slots(sizes: dict[str, Any]) -> int:
    base, einsum = columns_needed(sizes, sizes["num_inner_cols"], sizes["logrows"])
    return (base + einsum) << int(sizes["logrows"])


def prove(given: argparse.Namespace, model: Path, log: PhaseLog) -> None:
    """Begin the run or go on with it, to its end."""
    size = _size(given)
    inputs = np.random.default_rng(1).normal(size=(1, size.tokens, size.width)).astype(np.float32)
    options = _options(given)
    started = time.monotonic()
    progress = {"chunks": 0, "proved": 0}

    def listen(event: Event) -> None:
        elapsed = f"{time.monotonic() - started:7.0f} s"
        if isinstance(event, PlanReady):
            progress["chunks"] = len(event.chunks)
            say(f"{elapsed}  {len(event.chunks)} chunks, predicted {event.predicted_s:.0f} s")
        elif isinstance(event, ChunkMoved) and event.state == "verified":
            progress["proved"] += 1
            of = f"{progress['proved']}/{progress['chunks']}"
            say(f"{elapsed}  {event.chunk_id} proved in {event.seconds or 0:.1f} s ({of})")
        elif isinstance(event, Warned):
            say(f"{elapsed}  {event.message}")

    store = str(given.store)
    try:
        prepare(model, inputs, store=store, run_id=given.run, options=PlanOptions(**options))
    except RunExistsError:
        say(f"run {given.run} goes on")
    log.facts["resumed"] = []
    with log.phase("prove"):
        try:
            run = resume(given.run, store=store, workers=given.workers, listener=listen)
            log.facts["resumed"] = list(run.resumed)
        except RunExistsError:
            say(f"run {given.run} is complete")
    manifest = read_manifest(open_store(store), RunLayout("default", given.run))
    with log.phase("verify"):
        verify(given.run, store=store, plan_digest=manifest.plan_sha256, allow_insecure_srs=True)
    plan_made = stored_plan(store, given.run)
    log.facts |= totals(manifest.chunks)
    log.facts["circuits"] = circuits_of(plan_made)
    log.facts["predicted"] = [
        {"chunk": chunk.chunk, "prove_s": chunk.prove_s, "peak_bytes": chunk.peak_bytes}
        for chunk in stored_forecast(store, given.run).chunks
    ]
    log.facts["measured"] = [
        {
            "chunk": chunk.chunk,
            "prove_s": chunk.prove.seconds,
            "peak_rss_bytes": chunk.peak_rss_bytes,
        }
        for chunk in manifest.chunks
    ]
    log.facts["max_error"] = manifest.accuracy.max_abs_error if manifest.accuracy else None
    log.facts["plan_sha256"] = manifest.plan_sha256
    log.facts["choices"] = options


def planned(given: argparse.Namespace, model: Path, log: PhaseLog) -> None:
    """Plan the model under the memory and say what it would take."""
    threads = checked_threads(given.workers, None)
    with log.phase("plan"):
        circuits = plan(load_model(model), PlanOptions(**_options(given)))
    forecast = CostModel(profile=load_profile(), threads=threads).forecast(circuits)
    log.facts |= circuits_of(circuits.plan)
    log.facts |= {
        "options": _options(given),
        "threads": threads,
        "chunks": [chunk.model_dump(mode="json") for chunk in forecast.chunks],
        "cells": sum(
            chunk.num_rows * chunk.arguments.num_inner_cols for chunk in circuits.plan.chunks
        ),
        "boundary_elements": sum(
            boundary.layout.element_count for boundary in circuits.plan.boundaries
        ),
        "prove_worker_s": sum(chunk.prove_s for chunk in forecast.chunks),
        "setup_worker_s": sum(chunk.setup_s for chunk in forecast.chunks),
        "makespan_s": {n: forecast.makespan_s(n) for n in (1, given.workers, 8)},
        "peak_bytes": max(chunk.peak_bytes for chunk in forecast.chunks),
        "proof_bytes": sum(chunk.proof_bytes for chunk in forecast.chunks),
    }


def plan_lines(facts: dict[str, Any]) -> list[str]:
    """A plan's statistics for people."""
    lines = []
    columns = (facts[name] for name in ("kinds", "logrows", "columns", "rows", "operators"))
    for chunk, kind, logrows, wide, rows, operators in zip(facts["chunks"], *columns, strict=True):
        lines.append(
            f"{chunk['chunk']}  {kind:6}  2^{logrows} x {wide} x {chunk['column_blocks']} blocks  "
            f"{rows * wide:9,} cells  {chunk['prove_s']:7.1f} s  "
            f"{chunk['peak_bytes'] / (1 << 30):5.2f} GiB  {operators[:60]}"
        )
    spans = ", ".join(f"{n}: {found:.0f} s" for n, found in facts["makespan_s"].items())
    return [
        *lines,
        f"{len(facts['chunks'])} chunks, {facts['cells']:,} cells; boundaries "
        f"{facts['boundary_elements']:,} elements; proofs {facts['proof_bytes'] / 1e6:.2f} MB",
        f"predicted, {facts['threads']} threads a worker: proving {facts['prove_worker_s']:.0f} s "
        f"in all, keys {facts['setup_worker_s']:.0f} s, by workers {spans}; largest "
        f"{facts['peak_bytes'] / (1 << 30):.2f} GiB",
    ]


def _options(given: argparse.Namespace) -> dict[str, Any]:
    options = {"workers": given.workers, **merged_options(given.options)}
    if given.memory:
        options["memory_bytes"] = parse_size("--memory", given.memory)
    return options


def totals(chunks: tuple[ChunkRecord, ...]) -> dict[str, Any]:
    """Figures over all chunks; they hold however many sessions it took."""
    return {
        "chunks": len(chunks),
        "threads": sorted({chunk.threads for chunk in chunks}),
        "setup_worker_s": sum(chunk.setup.seconds for chunk in chunks),
        "witness_worker_s": sum(chunk.witness.seconds for chunk in chunks),
        "prove_worker_s": sum(chunk.prove.seconds for chunk in chunks),
        "longest_prove_s": max(chunk.prove.seconds for chunk in chunks),
        "verify_s": sum(chunk.verify_s for chunk in chunks),
        "busy_wall_s": covered_s(
            [(chunk.setup.started_s, chunk.prove.ended_s) for chunk in chunks]
        ),
        "keys_made": sum(chunk.keys_made for chunk in chunks),
        "largest_worker_bytes": max(chunk.peak_rss_bytes for chunk in chunks),
        "proof_bytes": sum(chunk.proof_bytes for chunk in chunks),
    }


def covered_s(spans: list[tuple[float, float]]) -> float:
    """Seconds during which at least one of the spans runs."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def extrapolated(facts: dict[str, Any], layers: int) -> dict[str, Any] | None:
    """Measured figures of some layers, multiplied to all of them; None if all were measured."""
    if layers == FULL_LAYERS:
        return None
    names = ("chunks", "setup_worker_s", "prove_worker_s", "busy_wall_s", "proof_bytes")
    return {
        "layers": FULL_LAYERS,
        "from_layers": layers,
        **{name: facts[name] * FULL_LAYERS / layers for name in names},
    }


def _size(given: argparse.Namespace) -> EncoderSize:
    return EncoderSize(
        layers=given.layers,
        width=given.width,
        heads=given.heads,
        hidden=given.hidden,
        tokens=given.tokens,
    )


def _child(given: argparse.Namespace, model: Path) -> None:
    log = PhaseLog(given.report)
    {
        "size": lambda: one_circuit(model, log, sound=False),
        "size-sound": lambda: one_circuit(model, log, sound=True),
        "plan": lambda: planned(given, model, log),
        "prove": lambda: prove(given, model, log),
    }[given.child]()
    log.write()


def main() -> None:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None, help="needed unless --plan-only")
    parser.add_argument("--plan-only", action="store_true")
    parser.add_argument("--only", choices=("size", "prove"), default=None)
    parser.add_argument("--memory", default="6GiB", help="of each process; '' for no limit")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--layers", type=int, default=MINI_LM.layers)
    parser.add_argument("--width", type=int, default=MINI_LM.width)
    parser.add_argument("--heads", type=int, default=MINI_LM.heads)
    parser.add_argument("--hidden", type=int, default=MINI_LM.hidden)
    parser.add_argument("--tokens", type=int, default=MINI_LM.tokens)
    parser.add_argument("--options", default="{}", help=f"more of PlanOptions, over {OPTIONS}")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "benchmarks" / "big")
    parser.add_argument("--store", type=Path, default=None, help="default: in --folder")
    parser.add_argument("--run", default=None, help="default: from the sizes")
    parser.add_argument("--size-limit-s", type=float, default=1800)
    parser.add_argument("--memory-limit-gib", type=float, default=0.92 * memory_gib)
    parser.add_argument("--child", choices=(*ONE_CIRCUIT, "plan", "prove"), help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.store = given.store or given.folder / "store"
    name = f"encoder-{given.layers}x{given.width}x{given.hidden}x{given.tokens}"
    given.run = given.run or name
    model = given.folder / f"{name}.onnx"
    if given.child:
        _child(given, model)
        return
    if not model.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(build_encoder(_size(given)), model)
    result: dict[str, Any] = {"sessions": []}
    if given.out is None:
        if not given.plan_only:
            parser.error("--out is needed")
    elif given.out.exists():
        result = json.loads(given.out.read_text())
    result |= {
        "encoder": asdict(_size(given)),
        "run": given.run,
        "memory": given.memory,
        "workers": given.workers,
    }
    if given.plan_only:
        _step("plan", given, result)
        record.write(given.out, result)
        return
    for step in (*ONE_CIRCUIT, "prove"):
        if given.only is None or step.startswith(given.only):
            if step == "prove":
                result["sessions"].append({"at": record.circumstances()["at"], **INTERRUPTED})
                record.write(given.out, result)
            _step(step, given, result)
            record.write(given.out, result)
    shown = {name: value for name, value in result.items() if name != "sessions"}
    print(json.dumps(shown, indent=1))


def _step(step: str, given: argparse.Namespace, result: dict[str, Any]) -> None:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", step]
    environment = {"ZKML_RAY_CACHE": str(given.folder / "cache"), "PYTHONPATH": str(ROOT)}
    if step in ONE_CIRCUIT:
        environment["RAYON_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
        report = Path(scratch) / "report.json"
        found = watch(
            [*command, "--report", str(report)],
            report,
            environment=environment,
            limit_bytes=int(given.memory_limit_gib * (1 << 30)),
            limit_s=given.size_limit_s if step in ONE_CIRCUIT else float("inf"),
            quiet=step != "prove",
        )
    if step == "plan":
        if found.failure:
            raise SystemExit(f"planning {found.failure}")
        spent = found.phases["plan"]
        result["planned"] = {**found.facts, "plan_s": spent["wall_s"]}
        print("\n".join(plan_lines(found.facts)))
        print(f"planned in {spent['wall_s']:.0f} s, {found.largest_bytes / (1 << 30):.2f} GiB")
        return
    if block := ONE_CIRCUIT.get(step):
        result[block] = {"failure": found.failure, **found.facts}
        if not found.failure:
            result[block] |= predicted_memory(found.facts, RESULTS)
        return
    result["sessions"][-1] = {**record.circumstances(), **asdict(found)}
    if not found.failure:
        result["proved"] = {
            **found.facts,
            "layers": given.layers,
            "largest_bytes": max(
                [found.facts["largest_worker_bytes"]]
                + [session["largest_bytes"] for session in result["sessions"]]
            ),
            "sessions": len(result["sessions"]),
            "verify_all_s": found.phases["verify"]["wall_s"],
        }
        result["extrapolated"] = extrapolated(found.facts, given.layers)
    else:
        say(f"this session {found.failure}; the same command goes on")


if __name__ == "__main__":
    main()

"""One step of one variant, in a process of its own; `versus_ezkl.py` starts and watches it.

    python -m benchmarks.variant STEP --variant V --model M --folder F --report R ...

Steps: `settings` (one thread), `setup` (keys), `prove` (measured). Variants: a, b, c are stock
ezkl (`benchmarks.stock`), dN is zkml_ray with N workers, through its public API alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import stock, tuning
from benchmarks.facts import add_predictions, circuits_of, describe, stored_forecast
from benchmarks.models.registry import MODELS, BenchmarkModel, FloatArray
from benchmarks.processes import PhaseLog
from zkml_ray import prove_distributed, verify
from zkml_ray.api import advance, prepare
from zkml_ray.canonical import document_digest
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.events import ChunkMoved, Event
from zkml_ray.stages.plan import PlanOptions, plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=("settings", "setup", "prove"))
    parser.add_argument("--variant", required=True)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--max-error", type=float, default=0.0)
    parser.add_argument("--finalists", type=int, default=2)
    parser.add_argument("--memory-bytes", type=int, default=None)
    parser.add_argument("--options", default="{}")
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    log = PhaseLog(given.report)
    model = MODELS[given.model]
    if given.variant.startswith("d"):
        ours(model, given, log)
    elif given.step == "settings":
        with log.phase("settings"):
            make_settings(model, given, log)
    elif given.step == "setup":
        stock.make_keys(given.folder, log)
    else:
        with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
            sample = model.inputs()[given.sample]
            stock.prove_input(given.folder, Path(scratch), sample, log)
            compare(model, sample, log)
    log.write()


def make_settings(model: BenchmarkModel, given: argparse.Namespace, log: PhaseLog) -> None:
    shutil.rmtree(given.folder, ignore_errors=True)
    if given.variant == "a":
        chosen = [stock.default_settings(model, given.folder)]
        part = stock.parts_of(given.folder)[0]
        stock.compile_part(part)
        tried = [tuning.forward(model, part, one) for one in stock.calibration_inputs(model)]
        log.facts["max_error"] = max(one.error for one in tried)
    elif given.variant == "b":
        tuning.finalists(
            model,
            given.folder,
            count=given.finalists,
            max_error=given.max_error,
            memory_bytes=given.memory_bytes,
        )
        log.facts["search"] = json.loads((given.folder / "search.json").read_text())
        return
    else:
        chosen, log.facts["tried"] = stock.split_settings(model, given.folder)
        if not chosen:
            log.facts["impossible"] = f"no split works: {log.facts['tried'][-1]['failure']}"
    log.facts["arguments"] = [settings["run_args"] for settings in chosen]
    log.facts["sizes"] = [tuning.sizes_of(settings) for settings in chosen]


def compare(model: BenchmarkModel, sample: FloatArray, log: PhaseLog) -> None:
    """Replace the outputs among the facts by their distance from onnxruntime's."""
    found = np.asarray(log.facts.pop("outputs"))
    difference = np.abs(found - tuning.float_output(model, sample).ravel())
    log.facts["max_error"] = float(difference.max())
    log.facts["mean_error"] = float(difference.mean())


def ours(model: BenchmarkModel, given: argparse.Namespace, log: PhaseLog) -> None:
    """A step of zkml_ray; its setup is `advance` up to that stage, Ray's start included."""
    workers = int(given.variant[1:].partition("-")[0])
    options = PlanOptions(**{"workers": workers, **json.loads(given.options)})
    if given.step == "prove":
        run_ours(model, workers, given, options, log)
        return
    if given.step == "settings":
        with log.phase("settings"):
            planned = plan(load_model(model.path), options).plan
        log.facts["plan_sha256"] = document_digest(planned.model_dump(mode="json"))
        log.facts |= circuits_of(planned)
        for logrows in set(log.facts["logrows"]):
            ensure_srs(logrows)
        return
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as store, log.phase("setup"):
        sample = model.inputs()[given.sample][None]
        request = prepare(model.path, sample, store=store, options=options)
        advance(request.run_id, "setup", store=store, workers=workers)


def run_ours(
    model: BenchmarkModel,
    workers: int,
    given: argparse.Namespace,
    options: PlanOptions,
    log: PhaseLog,
) -> None:
    """zkml_ray, everything included: Ray's start, planning, commitments, link, verification, store.

    The phase "prove" is the whole call; "witness" lies inside it. Verifying once more, as an
    outsider who trusts the plan's digest, is a phase of its own and no part of the total.
    """
    offset_s = time.monotonic() - time.time()
    witnessed: dict[str, float] = {}

    def listen(event: Event) -> None:
        if isinstance(event, ChunkMoved) and event.state == "witnessed":
            witnessed[event.chunk_id] = event.seconds or 0.0

    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as store:
        with log.phase("prove"):
            run = prove_distributed(
                model.path,
                workers=workers,
                inputs=model.inputs()[given.sample][None],
                threads=given.threads,
                store=store,
                options=options,
                listener=listen,
            )
        with log.phase("verify"):
            verdict = verify(
                run.run_id, store=store, plan_digest=run.plan_digest, allow_insecure_srs=True
            )
        if not (run.verified and verdict.ok):
            raise RuntimeError("the run does not verify")
        log.facts |= describe(run.manifest)
        if log.facts["keys_made"]:
            raise RuntimeError(f"{log.facts['keys_made']} keys were made: this was no warm run")
        log.facts["options"] = options.choices().model_dump(mode="json")
        log.facts["scales"] = sorted({chunk.arguments.input_scale for chunk in run.plan.chunks})
        log.facts |= circuits_of(run.plan)
        add_predictions(log.facts["chunks"], stored_forecast(store, run.run_id))
        log.facts["witness_s"] = witnessed
    for stage in run.manifest.stages:
        if stage.stage == "witness":
            log.phases["witness"] = {
                "start_s": stage.span.started_s + offset_s,
                "end_s": stage.span.ended_s + offset_s,
                "wall_s": stage.span.seconds,
                "cpu_s": 0.0,
                "user_s": 0.0,
                "peak_bytes": 0,
            }
    same_input = np.concatenate(
        [np.abs(run.outputs[n] - run.float_outputs[n]).ravel() for n in run.outputs]
    )
    log.facts["max_error"] = float(same_input.max())
    log.facts["mean_error"] = float(same_input.mean())


if __name__ == "__main__":
    main()

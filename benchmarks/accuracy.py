"""Does quantising and cutting a model cost accuracy? Every held-out image, no proofs.

    python benchmarks/accuracy.py --model digits --out FILE [--images N] [--processes N]

The quantised model is run by ezkl itself: the circuits of the plan, chunk by chunk, field elements
passed on as in a real run, by `ezkl.gen_witness`. Two things are left away that change no value of
the model: outputs are not hashed (their visibility is private instead), and salts are zero. The
first images (--checked) also go through `zkml_ray.stages.witness.forward`, which is what a real run
calls, and must give the same integers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import ezkl
import numpy as np
import numpy.typing as npt

from benchmarks import record
from benchmarks.models.registry import MODELS, BenchmarkModel, FloatArray
from benchmarks.steps import say
from benchmarks.tuning import float_output
from zkml_ray import backend
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits import DerivedCircuits
from zkml_ray.commitments.field import decode, encode
from zkml_ray.commitments.leaves import unpack_leaves
from zkml_ray.keycache import KeyCache
from zkml_ray.schema.plan import ChunkPlan
from zkml_ray.stages.inputs import quantise
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stages.witness import BoundaryValues, forward


class QuantisedModel:
    """A plan's circuits without hashing, compiled in a folder."""

    def __init__(self, circuits: DerivedCircuits, folder: Path) -> None:
        self._plan = circuits.plan
        self._boundaries = {boundary.name: boundary for boundary in self._plan.boundaries}
        self._folder = folder
        self._files = circuits.files
        for chunk in self._plan.chunks:
            if not self._compiled(chunk).exists():
                self._compile(chunk)

    def run(self, sample: FloatArray) -> dict[str, list[int]]:
        """Every boundary's integers for one input, which lacks the batch dimension.

        Raises:
            RuntimeError: A value left the range of a circuit.
        """
        name = self._plan.model_inputs[0]
        first = self._boundaries[name]
        values = {name: quantise(name, sample[None], first.scale, first.layout.layout().packing)}
        for chunk in self._plan.chunks:
            values |= self._forward(chunk, values)
        return values

    def real(self, values: Mapping[str, Sequence[int]]) -> npt.NDArray[np.float64]:
        """The model's first output as real numbers, flat."""
        name = self._plan.model_outputs[0]
        return np.asarray(values[name], dtype=np.float64) / 2.0 ** self._boundaries[name].scale

    def as_in_a_run(self, sample: FloatArray) -> dict[str, list[int]]:
        """The same by `forward`, the witness stage of a real run, with hashes and salts checked."""
        name = self._plan.model_inputs[0]
        first = self._boundaries[name]
        known = {
            name: BoundaryValues(
                values=quantise(name, sample[None], first.scale, first.layout.layout().packing),
                salts=self._salts(name),
            )
        }
        for chunk in self._plan.chunks:
            files = self._files[chunk.id]
            with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
                made = forward(
                    chunk,
                    self._boundaries,
                    KeyCache().circuit(files.onnx, files.settings),
                    {name: known[name] for name in chunk.inputs},
                    {name: self._salts(name) for name in chunk.outputs},
                    Path(scratch) / "witness.json",
                )
            known |= made.outgoing
        return {name: list(found.values) for name, found in known.items()}

    def _salts(self, name: str) -> list[int]:
        layout = self._boundaries[name].layout.layout()
        return [0] * (layout.salts_per_leaf * layout.leaf_count)

    def _compiled(self, chunk: ChunkPlan) -> Path:
        return self._folder / f"{chunk.id}.circuit"

    def _compile(self, chunk: ChunkPlan) -> None:
        model, settings = (self._folder / f"{chunk.id}.{kind}" for kind in ("onnx", "settings"))
        model.write_bytes(self._files[chunk.id].onnx)
        arguments = backend.run_args(chunk.arguments)
        arguments.output_visibility = "private"
        settings.write_bytes(backend.settings_for(model, arguments).data)
        backend.compile_circuit(model, settings, self._compiled(chunk))

    def _forward(
        self, chunk: ChunkPlan, values: Mapping[str, Sequence[int]]
    ) -> dict[str, list[int]]:
        tensors = [values[name] for name in chunk.inputs]
        tensors += [salts for name in chunk.touched() if (salts := self._salts(name))]
        with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
            data, made = Path(scratch) / "input.json", Path(scratch) / "witness.json"
            data.write_text(json.dumps({"input_data": [[encode(v) for v in t] for t in tensors]}))
            ezkl.gen_witness(str(data), str(self._compiled(chunk)), str(made))
            witness = json.loads(made.read_text())
        low, high = chunk.arguments.lookup_range
        if witness["min_lookup_inputs"] < low or witness["max_lookup_inputs"] > high:
            raise RuntimeError(f"{chunk.id}: a value left the lookup range")
        found, start = {}, 0
        for name in chunk.touched():
            layout = self._boundaries[name].layout.layout()
            packed = witness["outputs"][start : start + layout.leaf_count]
            start += layout.leaf_count
            if name in chunk.outputs:
                found[name] = unpack_leaves([[decode(v) for v in p] for p in packed], layout)[0]
        return found


_worker: dict[str, Any] = {}


def _start(circuits: DerivedCircuits, folder: Path, model: str) -> None:
    _worker["quantised"] = QuantisedModel(circuits, folder)
    _worker["inputs"] = MODELS[model].inputs()


def _one(index: int) -> list[float]:
    quantised: QuantisedModel = _worker["quantised"]
    return [float(v) for v in quantised.real(quantised.run(_worker["inputs"][index]))]


def measure(
    model: BenchmarkModel, options: PlanOptions, *, images: int | None, processes: int, checked: int
) -> dict[str, Any]:
    """Run every image, quantised and in floats.

    Args:
        model: A model with labels.
        options: The plan's.
        images: How many of the held-out images; None: all.
        processes: Processes that share them.
        checked: How many also go through a real run's witness stage.
    """
    if model.labels is None:
        raise SystemExit(f"{model.name} classifies nothing")
    inputs, labels = model.inputs()[:images], model.labels()[:images]
    circuits = plan(load_model(model.path), options)
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as name:
        folder = Path(name)
        quantised = QuantisedModel(circuits, folder)
        for sample in inputs[:checked]:
            if quantised.run(sample) != quantised.as_in_a_run(sample):
                raise SystemExit("a real run's integers differ: this measures something else")
        say(f"{checked} images give the integers of a real run")
        started = time.monotonic()
        with ProcessPoolExecutor(
            processes, get_context("spawn"), _start, (circuits, folder, model.name)
        ) as pool:
            outputs = np.asarray(list(pool.map(_one, range(len(inputs)), chunksize=8)))
        wall_s = time.monotonic() - started
    floats = np.stack([float_output(model, sample).ravel() for sample in inputs])
    return {
        "model": model.name,
        "title": model.title,
        "method": "ezkl.gen_witness per chunk, field elements passed on, outputs not hashed",
        "options": options.choices().model_dump(mode="json"),
        "chunks": len(circuits.plan.chunks),
        "images": len(labels),
        "checked_against_a_run": checked,
        "wall_s": wall_s,
        **compare(floats, outputs, labels),
    }


def compare(
    floats: npt.NDArray[Any], quantised: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> dict[str, Any]:
    """Top-1 of both models and how often they agree.

    Args:
        floats: The float model's outputs, shape [N, classes].
        quantised: The quantised model's, same shape.
        labels: Shape [N].
    """
    ours, theirs = quantised.argmax(axis=1), floats.argmax(axis=1)
    differences = np.abs(quantised - floats)
    return {
        "float_top1": float((theirs == labels).mean()),
        "quantised_top1": float((ours == labels).mean()),
        "agreement": float((ours == theirs).mean()),
        "disagreeing_images": [int(index) for index in np.flatnonzero(ours != theirs)],
        "max_abs_error": float(differences.max()),
        "mean_abs_error": float(differences.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    labelled = [name for name, model in MODELS.items() if model.labels is not None]
    parser.add_argument("--model", choices=labelled, required=True)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--checked", type=int, default=3)
    parser.add_argument("--options", default="{}", help="zkml_ray's PlanOptions, as JSON")
    given = parser.parse_args()
    found = measure(
        MODELS[given.model],
        PlanOptions(**json.loads(given.options)),
        images=given.images,
        processes=given.processes,
        checked=given.checked,
    )
    record.write(given.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Does quantising and cutting a model cost accuracy? Many inputs, no proofs.

    python benchmarks/accuracy.py --model digits --out FILE [--inputs N] [--processes N]

Ours: the circuits of the plan, chunk by chunk, whole numbers passed on as in a real run. Hinted
chunks are computed by their recipes (`zkml_ray.chunking.hinted.recipe`), native ones by
`ezkl.gen_witness` with two things left away that change no value of the model: outputs are not
hashed (their visibility is private instead), and salts are zero. The first inputs (--checked) also
go through `zkml_ray.stages.witness.forward`, which is what a real run calls, whose values are those
of ezkl's forward pass; both must give the same integers.

Stock: one circuit with default arguments after ezkl's own calibration, variant (a) of
`versus_ezkl.py`, by `ezkl.gen_witness`, on the same inputs.

Inputs are every held-out image for trained models, and the seeded ones for the others, which
classify nothing. Errors are distances of an output's elements from onnxruntime's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import ezkl
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from benchmarks import record, stock
from benchmarks.models.registry import MODELS, BenchmarkModel, FloatArray, IntArray
from benchmarks.steps import OPTIONS, merged_options, say
from benchmarks.tuning import run_part
from zkml_ray.chunking.hinted.recipe import Recipe
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import CircuitFiles, DerivedCircuits
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.commitments.field import decode, encode
from zkml_ray.commitments.leaves import unpack_leaves
from zkml_ray.schema.plan import BoundaryPlan, ChunkPlan
from zkml_ray.stages.inputs import quantise
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stages.witness import BoundaryValues, forward

Reals = npt.NDArray[np.float64]
Values = Mapping[str, Sequence[int]]


class Quantised(Protocol):
    """A quantised model, made in every process."""

    def outputs(self, sample: FloatArray) -> Reals:
        """The model's first output for one input without its batch dimension, flat."""
        ...


class OurModel:
    """A plan's circuits, computed without hashing."""

    def __init__(self, circuits: DerivedCircuits, folder: Path) -> None:
        self._plan = circuits.plan
        self._boundaries = {boundary.name: boundary for boundary in self._plan.boundaries}
        self._folder = folder
        self._files = circuits.files
        self._passes: dict[str, Callable[[Values], Values]] = {}
        for chunk in self._plan.chunks:
            files = circuits.files[chunk.id]
            hinted = chunk.arguments.kind == "hinted"
            make = _by_recipe if hinted else self._by_ezkl
            self._passes[chunk.id] = make(chunk, files)

    def outputs(self, sample: FloatArray) -> Reals:
        """See `Quantised`.

        Raises:
            RuntimeError: A value left the range of a circuit.
        """
        name = self._plan.model_outputs[0]
        values = np.asarray(self.run(sample)[name], dtype=np.float64)
        return values / 2.0 ** self._boundaries[name].scale

    def run(self, sample: FloatArray) -> dict[str, list[int]]:
        """Every boundary's integers for one input, which lacks the batch dimension."""
        values: dict[str, Sequence[int]] = dict(self._first(sample))
        for chunk in self._plan.chunks:
            values |= self._passes[chunk.id]({name: values[name] for name in chunk.inputs})
        return {name: [int(v) for v in found] for name, found in values.items()}

    def as_in_a_run(self, sample: FloatArray) -> dict[str, list[int]]:
        """The same by `forward`, the witness stage of a real run, with hashes and salts checked."""
        known = {
            name: BoundaryValues(values=values, salts=self._salts(name))
            for name, values in self._first(sample).items()
        }
        cache = KeyCache(self._folder / "cache")
        for chunk in self._plan.chunks:
            files = self._files[chunk.id]
            with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
                made = forward(
                    chunk,
                    self._boundaries,
                    cache.circuit(files.onnx, files.settings),
                    {name: known[name] for name in chunk.inputs},
                    {name: self._salts(name) for name in chunk.outputs},
                    Path(scratch) / "witness.json",
                )
            known |= made.outgoing
        return {name: list(found.values) for name, found in known.items()}

    def _first(self, sample: FloatArray) -> dict[str, list[int]]:
        name = self._plan.model_inputs[0]
        first = self._boundaries[name]
        packing = first.layout.layout().packing
        return {name: quantise(name, sample[None], first.scale, packing)}

    def _salts(self, name: str) -> list[int]:
        layout = self._boundaries[name].layout.layout()
        return [0] * (layout.salts_per_leaf * layout.leaf_count)

    def _by_ezkl(self, chunk: ChunkPlan, files: CircuitFiles) -> Callable[[Values], Values]:
        compiled = self._folder / f"{chunk.id}.circuit"
        if not compiled.exists():
            _compile(chunk, files, compiled)

        def run(values: Values) -> Values:
            tensors = [values[name] for name in chunk.inputs]
            tensors += [salts for name in chunk.touched() if (salts := self._salts(name))]
            return _outgoing(chunk, self._boundaries, _witness(chunk, compiled, tensors))

        return run


def _by_recipe(chunk: ChunkPlan, files: CircuitFiles) -> Callable[[Values], Values]:
    recipe = Recipe(onnx.load_model_from_string(files.onnx))
    return lambda values: {
        name: found.tolist() for name, found in recipe.solve(values, chunk.id).outgoing.items()
    }


def _compile(chunk: ChunkPlan, files: CircuitFiles, compiled: Path) -> None:
    model, settings = (compiled.with_suffix(f".{kind}") for kind in ("onnx", "settings"))
    model.write_bytes(files.onnx)
    arguments = backend.run_args(chunk.arguments)
    arguments.output_visibility = "private"
    settings.write_bytes(backend.settings_for(model, arguments).data)
    backend.compile_circuit(model, settings, compiled)


def _witness(chunk: ChunkPlan, compiled: Path, tensors: Sequence[Sequence[int]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
        data, made = Path(scratch) / "input.json", Path(scratch) / "witness.json"
        field = [[encode(v) for v in tensor] for tensor in tensors]
        data.write_text(json.dumps({"input_data": field}))
        try:
            ezkl.gen_witness(str(data), str(compiled), str(made))
        except RuntimeError as error:
            raise RuntimeError(f"{chunk.id}: a value left its circuit's range ({error})") from None
        found: dict[str, Any] = json.loads(made.read_text())
    low, high = chunk.arguments.lookup_range
    if found["min_lookup_inputs"] < low or found["max_lookup_inputs"] > high:
        raise RuntimeError(f"{chunk.id}: a value left the lookup range")
    return found


def _outgoing(
    chunk: ChunkPlan, boundaries: Mapping[str, BoundaryPlan], witness: Mapping[str, Any]
) -> Values:
    found, start = {}, 0
    for name in chunk.touched():
        layout = boundaries[name].layout.layout()
        packed = witness["outputs"][start : start + layout.leaf_count]
        start += layout.leaf_count
        if name in chunk.outputs:
            found[name] = unpack_leaves([[decode(v) for v in p] for p in packed], layout)[0]
    return found


class StockModel:
    """One stock circuit, compiled in a folder."""

    def __init__(self, part: Path) -> None:
        self._part = part

    def outputs(self, sample: FloatArray) -> Reals:
        """See `Quantised`."""
        with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
            return np.asarray(run_part(self._part, sample, Path(scratch)).outputs)


_worker: dict[str, Any] = {}


def _start(make: Callable[[], Quantised], model: str) -> None:
    _worker["quantised"] = make()
    _worker["inputs"] = MODELS[model].inputs()


def _one(index: int) -> list[float]:
    quantised: Quantised = _worker["quantised"]
    return [float(v) for v in quantised.outputs(_worker["inputs"][index])]


def every_output(
    make: Callable[[], Quantised], model: BenchmarkModel, count: int, processes: int
) -> Reals:
    """Outputs for the first inputs of a model, shape [count, elements]."""
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (make, model.name)) as pool:
        return np.asarray(list(pool.map(_one, range(count), chunksize=4)))


def measure(
    model: BenchmarkModel, options: PlanOptions, *, count: int | None, processes: int, checked: int
) -> dict[str, Any]:
    """Run every input through our circuits, stock's and onnxruntime.

    Args:
        model: A model.
        options: The plan's.
        count: How many of its inputs; None: all.
        processes: Processes that share them.
        checked: How many also go through a real run's witness stage.
    """
    inputs = model.inputs()[:count]
    labels = None if model.labels is None else model.labels()[: len(inputs)]
    floats = float_outputs(model, inputs)
    circuits = plan(load_model(model.path), options)
    spent = {}
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as name:
        folder = Path(name)
        quantised = OurModel(circuits, folder)
        for sample in inputs[:checked]:
            if quantised.run(sample) != quantised.as_in_a_run(sample):
                raise SystemExit("a real run's integers differ: this measures something else")
        say(f"{checked} inputs give the integers of a real run")
        started = time.monotonic()
        ours = every_output(partial(OurModel, circuits, folder), model, len(inputs), processes)
        spent["ours_s"] = time.monotonic() - started
        say(f"ours: {len(inputs)} inputs in {spent['ours_s']:.1f} s")
        settings = stock.default_settings(model, folder / "stock")
        part = stock.parts_of(folder / "stock")[0]
        stock.compile_part(part)
        started = time.monotonic()
        theirs = every_output(partial(StockModel, part), model, len(inputs), processes)
        spent["stock_s"] = time.monotonic() - started
        say(f"stock: {len(inputs)} inputs in {spent['stock_s']:.1f} s")
    found = {
        "ours": compare(floats, ours, labels),
        "stock": compare(floats, theirs, labels) | {"arguments": settings["run_args"]},
    }
    return {
        "model": model.name,
        "title": model.title,
        "options": options.choices().model_dump(mode="json"),
        "kinds": [chunk.arguments.kind for chunk in circuits.plan.chunks],
        "inputs": len(inputs),
        "checked_against_a_run": checked,
        **spent,
        **({} if labels is None else {"float_top1": top1(floats, labels)}),
        **found,
        "no_worse": {
            kind: found["ours"][kind] <= found["stock"][kind]
            for kind in ("max_abs_error", "mean_abs_error")
        },
    }


def float_outputs(model: BenchmarkModel, inputs: FloatArray) -> Reals:
    """Onnxruntime's first output for every input, shape [N, elements]."""
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: one[None]})[0].ravel() for one in inputs])


def compare(floats: Reals, quantised: Reals, labels: IntArray | None) -> dict[str, Any]:
    """Errors of a quantised model, and its top-1 and how often it agrees where it classifies.

    Args:
        floats: The float model's outputs, shape [N, elements].
        quantised: The quantised model's, same shape.
        labels: Shape [N]; None for a model that classifies nothing.
    """
    differences = np.abs(quantised - floats)
    errors = {
        "max_abs_error": float(differences.max()),
        "mean_abs_error": float(differences.mean()),
    }
    if labels is None:
        return errors
    ours, theirs = quantised.argmax(axis=1), floats.argmax(axis=1)
    return {
        **errors,
        "top1": top1(quantised, labels),
        "agreement": float((ours == theirs).mean()),
        "disagreeing_inputs": [int(index) for index in np.flatnonzero(ours != theirs)],
    }


def top1(outputs: Reals, labels: IntArray) -> float:
    """Share of inputs whose largest output is that of their label."""
    return float((outputs.argmax(axis=1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--inputs", type=int, default=None, help="default: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--checked", type=int, default=3)
    parser.add_argument("--options", default="{}", help=f"PlanOptions, over {OPTIONS}")
    given = parser.parse_args()
    model = MODELS[given.model]
    found = measure(
        model,
        PlanOptions(**merged_options(given.options)),
        count=given.inputs,
        processes=given.processes,
        checked=given.checked,
    )
    record.write(given.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

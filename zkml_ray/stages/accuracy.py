"""Accuracy of a plan: its quantised chunks against the float model, boundary by boundary.

The chunks' circuits are run as the witness stage runs them, so what is measured is what would be
proved. onnxruntime gives the float values: of the outputs from the user's own file, of the tensors
in between from the graph that the chunks were cut from, rewrites included. Nothing
is proved and no key is made; the salts are of no consequence and drawn from a fixed seed.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from zkml_ray import limits
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.circuits.derive import DerivedCircuits, normalised_graph
from zkml_ray.circuits.keycache import CachedCircuit, KeyCache
from zkml_ray.commitments.leaves import draw_salts
from zkml_ray.errors import (
    AccuracyError,
    ConfigError,
    InputError,
    RangeExceededError,
    StageError,
)
from zkml_ray.schema.plan import BoundaryPlan, Plan
from zkml_ray.scratch import scratch_folder
from zkml_ray.stages.accuracy_report import AccuracyReport, Measured, finite
from zkml_ray.stages.comparison import OutputDifference, advice, difference
from zkml_ray.stages.inputs import Arrays, Inputs, ModelInput, quantise, read_inputs
from zkml_ray.stages.reference import Reference, float_tensors, reference_outputs
from zkml_ray.stages.witness import BoundaryValues, forward

RANDOM_SAMPLES: Final = 4
"""Seeded random inputs that stand in where no calibration data is given."""

AUTO_SCALES: Final = tuple(range(limits.MIN_SCALE, 14))
"""Scales that are tried. Above 13 a product of two numbers near 2 leaves the default range."""

_SALT_SEED: Final = b"zkml_ray/accuracy"

Reals = npt.NDArray[np.float64]


def read_samples(
    graph: ModelGraph, files: Sequence[Path], *, seed: int, random: int = RANDOM_SAMPLES
) -> list[Arrays]:
    """Calibration inputs.

    Args:
        graph: The model.
        files: Inputs as `read_inputs` takes them; .npy and .npz may hold several along an
            additional first axis. None at all: seeded random inputs.
        seed: Seed of the random inputs.
        random: How many of them.

    Raises:
        InputError: A file is not an input of the model.
    """
    if not files:
        return [read_inputs(graph, None, seed=seed + offset).arrays for offset in range(random)]
    return [sample.arrays for sample in read_files(graph, files)]


def read_files(graph: ModelGraph, files: Sequence[Path]) -> list[ModelInput]:
    """The inputs that files hold, in their order: one each, or several along a first axis.

    Raises:
        InputError: A file is not an input of the model, or holds none; the message names it.
    """
    found: list[ModelInput] = []
    for path in files:
        stacked = _stacked(graph, path)
        if stacked is None:
            found.append(_named(graph, path, path.name))
            continue
        if not stacked:
            raise InputError(f"{path.name} holds no input: its first axis is 0 long")
        for index, entry in enumerate(stacked):
            found.append(_named(graph, entry, f"{path.name}, input {index}"))
    return found


def _named(graph: ModelGraph, inputs: Inputs, called: str) -> ModelInput:
    """An input of a file; the error of a wrong one says where it was."""
    try:
        return read_inputs(graph, inputs)
    except InputError as error:
        if called in error.message:
            raise
        raise InputError(f"{called}: {error.message}") from None


def measure_accuracy(
    model: LoadedModel,
    circuits: DerivedCircuits,
    samples: Sequence[Arrays],
    *,
    random: bool = False,
) -> AccuracyReport:
    """Compare a plan's quantised chunks with the float model.

    Args:
        model: The user's model.
        circuits: Its plan and circuits.
        samples: Inputs, at least one.
        random: Whether they are random numbers; only reported.

    Raises:
        RangeExceededError: A sample leaves the range of a circuit.
        InputError: A sample is outside the quantised range.
        ConfigError: There is no sample.
        StageError: onnxruntime does not run the model.
    """
    if not samples:
        raise ConfigError("accuracy needs at least one sample")
    plan = circuits.plan
    model = replace(model, tokens_outside=bool(plan.lookups))
    graph = normalised_graph(model, dict(plan.dimensions))
    cut = ModelGraph(onnx.ModelProto.FromString(circuits.normalised))
    inner = [b.name for b in plan.boundaries if b.name not in plan.model_outputs]
    found = {boundary.name: Measured() for boundary in plan.boundaries}
    vector = class_vector(plan)
    agreed = 0
    note = ""
    with scratch_folder() as folder:
        compiled = _compiled(circuits, folder)
        for arrays in samples:
            quantised = quantised_boundaries(plan, compiled.__getitem__, arrays)
            reference = reference_outputs(model, graph, arrays)
            exact = _inner_tensors(cut, arrays, inner, reference)
            note = reference.note
            for boundary in plan.boundaries:
                got = real_values(boundary, quantised[boundary.name])
                wanted = exact.get(boundary.name)
                entry = difference(boundary.name, got, wanted, plan.input_scale)
                found[boundary.name].add(entry)
                if boundary.name == vector and wanted is not None:
                    agreed += int(np.argmax(got)) == int(np.argmax(wanted))
    return AccuracyReport(
        input_scale=plan.input_scale,
        samples=len(samples),
        random=random,
        boundaries=tuple(
            found[boundary.name].described(
                boundary.name, is_output=boundary.name in plan.model_outputs
            )
            for boundary in plan.boundaries
        ),
        outputs=plan.model_outputs,
        top1_agreement=None if vector is None else agreed / len(samples),
        note=note,
        advice=advice(plan),
    )


def boundary_differences(
    model: LoadedModel,
    plan: Plan,
    cut: ModelGraph,
    graph: ModelGraph,
    arrays: Arrays,
    quantised: Mapping[str, Sequence[int]],
) -> tuple[OutputDifference, ...]:
    """Compare boundary values that are at hand with the float model's.

    Args:
        model: The user's model.
        plan: Its plan.
        cut: What its chunks were cut from.
        graph: The user's model, normalised.
        arrays: The input.
        quantised: Per boundary, its quantised elements, flat and row-major.

    Raises:
        StageError: onnxruntime does not run the model.
    """
    inner = [b.name for b in plan.boundaries if b.name not in plan.model_outputs]
    exact = _inner_tensors(cut, arrays, inner, reference_outputs(model, graph, arrays))
    return tuple(
        difference(b.name, real_values(b, quantised[b.name]), exact.get(b.name), plan.input_scale)
        for b in plan.boundaries
    )


def _inner_tensors(
    cut: ModelGraph, arrays: Arrays, names: Sequence[str], reference: Reference
) -> Mapping[str, npt.NDArray[Any]]:
    """The float values of every boundary.

    Raises:
        StageError: onnxruntime does not run the model.
    """
    if not reference.source:
        raise StageError(reference.note, stage="plan")
    try:
        inner: dict[str, npt.NDArray[Any]] = dict(float_tensors(cut, arrays, names))
    except Exception as error:  # onnxruntime's errors have no common class
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StageError(
            f"onnxruntime does not run the normalised model: {line}", stage="plan"
        ) from None
    return inner | dict(reference.values)


def calibrated(
    model: LoadedModel,
    planned: Callable[[int], DerivedCircuits],
    scales: Sequence[int],
    samples: Sequence[Arrays],
    *,
    random: bool = False,
    max_error: float | None = None,
) -> tuple[DerivedCircuits, AccuracyReport]:
    """Plan at the smallest scale that meets an aim, or without an aim at the most accurate.

    Args:
        model: The user's model.
        planned: Plans it at a scale.
        scales: What to try, ascending; `AUTO_SCALES` or the user's one scale.
        samples: Inputs to measure with.
        random: Whether they are random numbers.
        max_error: The aim: largest absolute error of an output.

    Raises:
        AccuracyError: No scale meets the aim.
        RangeExceededError: The samples leave the circuits' range at every scale.
        InputError: The same.
    """
    tried: list[tuple[DerivedCircuits, AccuracyReport]] = []
    failure: RangeExceededError | InputError | None = None
    for scale in scales:
        try:
            circuits = planned(scale)
            report = measure_accuracy(model, circuits, samples, random=random)
        except (RangeExceededError, InputError) as error:
            failure = error
            continue
        tried.append((circuits, report))
        if max_error is not None and report.max_abs_error <= max_error:
            return circuits, report
    if not tried:
        raise failure or ConfigError("no scale to try")
    best = min(tried, key=lambda pair: pair[1].max_abs_error)
    if max_error is not None:
        require_accuracy(best[1], max_error)
    return best


def require_accuracy(report: AccuracyReport, max_error: float) -> None:
    """Refuse a plan whose outputs are too far from the float model's.

    Raises:
        AccuracyError: The largest error is above `max_error`.
    """
    if report.max_abs_error > max_error:
        raise AccuracyError(
            f"the outputs differ from the float model's by up to {report.max_abs_error:.3g} at "
            f"scale {report.input_scale}, more than --max-error {max_error:g}; try another scale "
            "(--scale auto tries all)",
            max_abs_error=finite(report.max_abs_error),
            tolerance=max_error,
        )


def quantised_boundaries(
    plan: Plan, circuit_of: Callable[[str], CachedCircuit], arrays: Arrays
) -> dict[str, list[int]]:
    """Run a plan's chunks on an input, in field elements.

    Args:
        plan: The plan.
        circuit_of: Gives a chunk's compiled circuit by its id.
        arrays: The model's input, by name.

    Returns:
        Per boundary, its quantised elements, flat and row-major.

    Raises:
        RangeExceededError: A value left the range of a circuit.
        InputError: The input is outside the quantised range.
    """
    boundaries = {boundary.name: boundary for boundary in plan.boundaries}

    def salts(name: str) -> list[int]:
        return draw_salts(boundaries[name].layout.layout(), seed=_SALT_SEED, label=name)

    known = {}
    for name in plan.model_inputs:
        packing = boundaries[name].layout.layout().packing
        values = quantise(name, arrays[name], boundaries[name].scale, packing)
        known[name] = BoundaryValues(values=values, salts=salts(name))
    with scratch_folder() as folder:
        for chunk in plan.chunks:
            made = forward(
                chunk,
                boundaries,
                circuit_of(chunk.id),
                {name: known[name] for name in chunk.inputs},
                {name: salts(name) for name in chunk.outputs},
                folder / "witness.json",
            )
            known.update(made.outgoing)
    return {name: list(found.values) for name, found in known.items()}


def real_values(boundary: BoundaryPlan, values: Sequence[int]) -> Reals:
    """A boundary's quantised elements as real numbers, in its shape."""
    integers = np.array(values, dtype=np.float64)
    return (integers / (1 << boundary.scale)).reshape(boundary.shape)


def _compiled(circuits: DerivedCircuits, folder: Path) -> Mapping[str, CachedCircuit]:
    """Compiled for this measurement alone: most plans that are measured are never proved."""
    cache = KeyCache(folder)
    return {
        chunk_id: cache.circuit(files.onnx, files.settings)
        for chunk_id, files in circuits.files.items()
    }


def class_vector(plan: Plan) -> str | None:
    """The output that holds one score per class, if there is exactly one output and it is such."""
    if len(plan.model_outputs) != 1:
        return None
    name = plan.model_outputs[0]
    shape = plan.boundary(name).shape
    count = int(np.prod(shape))
    return name if count >= 2 and shape[-1] == count else None


def _stacked(graph: ModelGraph, path: Path) -> list[dict[str, Any]] | None:
    """Several inputs along an additional first axis, or None if the file holds a single one."""
    if path.suffix.lower() not in (".npy", ".npz") or not path.is_file():
        return None
    try:
        loaded = np.load(path, allow_pickle=False)
        named = {graph.asked[0]: loaded} if path.suffix.lower() == ".npy" else dict(loaded)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from None
    named = {name: array for name, array in named.items() if name not in graph.unread}
    shapes = {name: graph.tensor_shape(name) for name in graph.asked}
    if set(named) != set(shapes) or any(
        not array.ndim or array.shape[1:] != shapes[name] for name, array in named.items()
    ):
        return None
    counts = {array.shape[0] for array in named.values()}
    if len(counts) != 1:
        raise InputError(f"{path.name}: its inputs have different numbers of samples: {counts}")
    return [{name: array[i] for name, array in named.items()} for i in range(counts.pop())]

"""How coarse a plan may be before it is another model: what the verifier's floors rest on.

    python benchmarks/precision_floors.py --model digits --out FILE [--inputs N] [--equal]

For every input scale, hinted circuits as planned and native ones of every number of weight bits
are computed on held-out inputs (`benchmarks.accuracy.OurModel`: the circuits' own integers, nothing
is proved) and compared with onnxruntime: on how many inputs is the largest output another one, and
how far is an output off. Native circuits are made without rewrites, whose integers at equal weight
bits are the same (docs/adr/0015), with arguments that only have to have room.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import numpy as np
import onnxruntime

from benchmarks import record
from benchmarks.accuracy import OurModel
from benchmarks.models.registry import MODELS, BenchmarkModel, FloatArray
from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.circuits.derive import DerivedCircuits, derive_circuits, normalised_graph
from zkml_ray.errors import ZkmlRayError
from zkml_ray.schema.plan import CircuitArguments, CommitmentArguments
from zkml_ray.stages.plan import PlanOptions, plan

SCALES = range(1, 13)


def native(model: LoadedModel, scale: int, weight_bits: int) -> DerivedCircuits:
    """One native circuit of the whole model with room for anything."""
    graph = normalised_graph(model, {})
    arguments = CircuitArguments(
        input_scale=scale,
        param_scale=weight_bits,
        decomp_base=1 << 10,
        decomp_legs=4,
        num_inner_cols=2,
        logrows=20,
        lookup_range=(-(1 << 18), 1 << 18),
    )
    return derive_circuits(
        model,
        graph,
        dimensions={},
        parts=[list(graph.nodes)],
        input_scale=scale,
        commitment=CommitmentArguments(decomp_base=1 << 10),
        arguments=lambda *_: arguments,
    )


def candidates(model: LoadedModel, equal: bool) -> Iterator[tuple[str, int, int, DerivedCircuits]]:
    """Kind, scale, weight bits, circuits."""
    for scale in SCALES:
        try:
            options = PlanOptions(scale=scale, circuits="hinted", layers_per_chunk=1)
            circuits = plan(model, options)
        except ZkmlRayError as error:
            print(f"hinted {scale}: {error}", file=sys.stderr)
            continue
        yield "hinted", scale, circuits.plan.chunks[0].arguments.logrows, circuits
    pairs = [(s, s) for s in SCALES]
    if not equal:
        pairs = [(10, b) for b in SCALES] + pairs
    for scale, weight_bits in dict.fromkeys(pairs):
        try:
            circuits = native(model, scale, weight_bits)
        except ZkmlRayError as error:
            print(f"native {scale} {weight_bits}: {error}", file=sys.stderr)
            continue
        yield "native", scale, weight_bits, circuits


def measure(
    circuits: DerivedCircuits, inputs: FloatArray, exact: list[np.ndarray]
) -> dict[str, Any]:
    """How far a plan's integers are from the float model."""
    errors, differing, refused = [], 0, 0
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as folder:
        ours = OurModel(circuits, Path(folder))
        for sample, wanted in zip(inputs, exact, strict=True):
            try:
                got = ours.outputs(sample)
            except (RuntimeError, ZkmlRayError):
                refused += 1
                continue
            errors.append(float(np.abs(got - wanted).max()))
            differing += int(got.argmax()) != int(wanted.argmax())
    return {
        "inputs": len(inputs),
        "out_of_range": refused,
        "top1_differs": differing,
        "max_abs_error": max(errors, default=None),
        "mean_max_abs_error": float(np.mean(errors)) if errors else None,
    }


def float_outputs(chosen: BenchmarkModel, inputs: FloatArray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(chosen.path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: sample[None]})[0].ravel() for sample in inputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, choices=MODELS)
    parser.add_argument("--inputs", type=int, default=1 << 20)
    parser.add_argument("--equal", action="store_true", help="scale and weight bits equal only")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    chosen = MODELS[arguments.model]
    inputs = chosen.inputs()[: arguments.inputs]
    exact = float_outputs(chosen, inputs)
    largest = float(max(np.abs(values).max() for values in exact))
    rows = []
    for kind, scale, weight_bits, circuits in candidates(load_model(chosen.path), arguments.equal):
        found = measure(circuits, inputs, exact)
        rows.append({"kind": kind, "scale": scale, "weight_bits": weight_bits, **found})
        print(rows[-1], file=sys.stderr, flush=True)
    result = {"model": arguments.model, "largest_output": largest, "rows": rows}
    record.write(arguments.out, result)


if __name__ == "__main__":
    main()

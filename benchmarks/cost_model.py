"""Predicted against measured: what the cost model says of the circuits of whole models.

    python benchmarks/cost_model.py [--out FILE] [--profile FILE] [--limit 20] [--models a,b]
                                    [--memory 2GiB] [--circuits native,hinted]

Every model of the zoo and of the benchmarks is planned cut by the search and cut at every layer,
with native circuits and with hinted ones where it has them. Every different chunk whose proof is
predicted to take at most --limit core-seconds is set up and proved, each in a process of its own on
one thread, on the model's own activations for a random input. Seconds are CPU seconds of
`ezkl.prove`, the least of two; memory is what the process grew by, plus what an idle worker takes
(the profile's). None of these circuits was used to fit the shipped profile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import secrets
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.models.registry import MODELS
from benchmarks.steps import OPTIONS
from tests import zoo
from zkml_ray.chunking.hinted.recipe import Recipe, filled
from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.commitments.leaves import salt_bits
from zkml_ray.config import parse_size
from zkml_ray.cost.calibrate import measure
from zkml_ray.cost.load import geometry_of
from zkml_ray.cost.model import CostModel, proof_bytes
from zkml_ray.cost.profiles import load_profile
from zkml_ray.errors import ZkmlRayError
from zkml_ray.schema.plan import ChunkPlan
from zkml_ray.stages.plan import PlanOptions, plan

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
Values = Mapping[str, npt.NDArray[np.float32]]


def models() -> dict[str, Callable[[], onnx.ModelProto]]:
    """Every model that is measured, by name."""
    trained = {name: lambda path=entry.path: onnx.load(path) for name, entry in MODELS.items()}
    return {**zoo.MODELS, "digits": lambda: onnx.load(DIGITS), **trained}


OPTIONS_OF: dict[str, dict[str, Any]] = {
    "native": {"circuits": "native"},
    "hinted": {**OPTIONS, "circuits": "hinted"},
}
"""PlanOptions by kind of circuit; native ones at the scale that the profile was fitted at."""


def activations(normalised: bytes, seed: int = 0) -> Values:
    """Every tensor of a model on one random input, by onnxruntime."""
    proto = onnx.load_model_from_string(normalised)
    made = {name for node in proto.graph.node for name in node.output if name}
    floats = [v for v in proto.graph.value_info if v.name in made]
    proto.graph.output.extend(
        v for v in floats if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )
    generator = np.random.default_rng(seed)
    feeds = {
        value.name: generator.uniform(
            0, 1, [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in proto.graph.input
    }
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return {**feeds, **dict(zip(names, session.run(names, feeds), strict=True))}


def tensors(circuits: DerivedCircuits, chunk: ChunkPlan, values: Values) -> list[list[int]]:
    """A chunk's inputs as field elements: quantised activations, then random salts."""
    found, salts = [], []
    for name in chunk.inputs:
        scale = circuits.plan.boundary(name).scale
        found.append([round(float(v) * 2.0**scale) for v in values[name].ravel()])
    for name in chunk.touched():
        layout = circuits.plan.boundary(name).layout.layout()
        bits = salt_bits(layout.packing)
        salts.append([secrets.randbits(bits) for _ in range(layout.salt_count)])
    return [*found, *(salt for salt in salts if salt)]


def advice(onnx_data: bytes, chunk: ChunkPlan, given: list[list[int]]) -> list[int]:
    """The one input of a hinted circuit: its hints, values and salts, and blinders."""
    values = dict(zip(chunk.inputs, given, strict=False))
    model = onnx.load_model_from_string(onnx_data)
    hints = Recipe(model).solve(values, chunk.id).hints
    return filled(model, hints, [element for tensor in given for element in tensor])


def chunks_of(
    name: str, memory_bytes: int | None, kinds: Sequence[str]
) -> Iterator[tuple[str, DerivedCircuits, ChunkPlan]]:
    data = models()[name]().SerializeToString()
    cuts: dict[str, dict[str, Any]] = {
        "search": {"memory_bytes": memory_bytes},
        "layers": {"layers_per_chunk": 1},
    }
    for how, kind in itertools.product(cuts, kinds):
        options = PlanOptions(**cuts[how], **OPTIONS_OF[kind])
        try:
            circuits = plan(parse_model(data, name), options)
        except ZkmlRayError as error:
            print(f"{name} ({how}, {kind}) is not planned: {error}", file=sys.stderr)
            continue
        for chunk in circuits.plan.chunks:
            yield how, circuits, chunk


def run(
    names: list[str],
    prices: CostModel,
    limit_s: float,
    memory_bytes: int | None,
    kinds: Sequence[str],
    console: Console,
) -> list[dict[str, Any]]:
    rows, seen = [], set()
    for name in names:
        for how, circuits, chunk in chunks_of(name, memory_bytes, kinds):
            files = circuits.files[chunk.id]
            geometry = geometry_of(files.settings)
            predicted_s = prices.prove_s(geometry)
            key = (files.onnx, files.settings)
            if key in seen or predicted_s > limit_s:
                continue
            seen.add(key)
            values = activations(circuits.normalised)
            try:
                given = tensors(circuits, chunk, values)
                if chunk.arguments.kind == "hinted":
                    given = [advice(files.onnx, chunk, given)]
                found = measure(files.onnx, given, chunk.arguments)
            except ZkmlRayError as error:
                print(f"{name} {chunk.id} is not measured: {error}", file=sys.stderr)
                continue
            grown = max(found.prove_bytes, found.setup_bytes)
            rows.append(
                {
                    "model": name,
                    "cut": how,
                    "chunk": chunk.id,
                    "kind": chunk.arguments.kind,
                    "operators": " ".join(chunk.operators),
                    "logrows": geometry.logrows,
                    "columns": geometry.inner_columns,
                    "blocks": geometry.blocks,
                    "einsum_blocks": geometry.einsum_blocks,
                    "predicted": {
                        "prove_core_s": predicted_s,
                        "setup_core_s": prices.setup_s(geometry),
                        "peak_bytes": prices.peak_bytes(geometry),
                        "proof_bytes": proof_bytes(geometry),
                    },
                    "measured": {
                        "prove_core_s": found.prove_core_s,
                        "setup_core_s": found.setup_core_s,
                        "peak_bytes": prices.profile.worker_bytes + grown,
                        "proof_bytes": found.proof_bytes,
                    },
                }
            )
            last = rows[-1]["measured"]
            console.print(
                f"{name} {how} {chunk.id} ({chunk.arguments.kind}): {predicted_s:.2f} s predicted, "
                f"{last['prove_core_s']:.2f} s measured"
            )
    return rows


def errors(rows: list[dict[str, Any]], quantity: str) -> list[float]:
    """Relative differences, predicted to measured."""
    return [row["predicted"][quantity] / row["measured"][quantity] - 1 for row in rows]


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median and largest relative error of every quantity."""
    found = {}
    for quantity in ("prove_core_s", "setup_core_s", "peak_bytes", "proof_bytes"):
        sizes = [abs(error) for error in errors(rows, quantity)]
        found[quantity] = {
            "median": statistics.median(sizes) if sizes else math.nan,
            "largest": max(sizes, default=math.nan),
        }
    return found


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title="predicted (error) by chunk, one thread")
    for column in (
        "model",
        "cut",
        "chunk",
        "kind",
        "2^",
        "columns",
        "prove s",
        "setup s",
        "MiB",
        "proof B",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        cells = [
            f"{row['predicted'][quantity] / unit:,.{digits}f} "
            f"({row['predicted'][quantity] / row['measured'][quantity] - 1:+.0%})"
            for quantity, unit, digits in (
                ("prove_core_s", 1, 2),
                ("setup_core_s", 1, 2),
                ("peak_bytes", 1 << 20, 0),
                ("proof_bytes", 1, 0),
            )
        ]
        shape = f"{row['blocks']}+{row['einsum_blocks']} x {row['columns']}"
        table.add_row(
            row["model"], row["cut"], row["chunk"], row["kind"], str(row["logrows"]), shape, *cells
        )
    console.print(table)
    for kind in sorted({row["kind"] for row in rows}):
        those = [row for row in rows if row["kind"] == kind]
        for quantity, found in summary(those).items():
            console.print(
                f"{kind}, {quantity}: median error {found['median']:.1%}, largest "
                f"{found['largest']:.1%} ({len(those)} chunks)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--profile", type=Path, default=None)
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--models", default=None)
    parser.add_argument("--memory", default=None)
    parser.add_argument("--circuits", default="native,hinted")
    given = parser.parse_args()
    prices = CostModel(profile=load_profile(given.profile), threads=1)
    names = given.models.split(",") if given.models else list(models())
    memory_bytes = None if given.memory is None else parse_size("--memory", given.memory)
    console = Console()
    kinds = given.circuits.split(",")
    rows = run(names, prices, given.limit, memory_bytes, kinds, console)
    show(console, rows)
    profile = json.loads(prices.profile.to_bytes())
    by_kind = {kind: summary([row for row in rows if row["kind"] == kind]) for kind in kinds}
    result = {"profile": profile, "summary": summary(rows), "by_kind": by_kind, "chunks": rows}
    record.write(given.out, result)


if __name__ == "__main__":
    main()

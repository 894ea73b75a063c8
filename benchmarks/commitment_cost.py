"""What committing to a boundary costs inside a circuit.

    python benchmarks/commitment_cost.py [--out FILE] [--max-logrows 15] [--repeats 3]

Part 1: a ReLU over n elements whose output is not committed, hashed by ezkl as it is ("hashed"),
or committed to as we do at several packing factors. Part 2: every chunk of LeNet-5 with and
without its commitments, at the same logrows and columns.

Proving time is CPU seconds of the proving process with one prover thread, the least of the
repeats: other load on the machine disturbs it less than wall time. Circuits above --max-logrows
are sized but not proved.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from benchmarks import record
from benchmarks.models.registry import MODELS
from zkml_ray.chunking.extract import CommittedTensor, extract_chunk
from zkml_ray.chunking.graph import ModelGraph, TensorInfo
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.stages.plan import PlanOptions, plan

SIZES = (64, 256, 1024, 4096)
PACKS = {1: (1, 1), 2: (2, 1), 4: (4, 1), 8: (4, 2)}
STRIDE_BITS = 30
BASE, LEGS, SCALE, COLUMNS = 128, 4, 10, 5


def arguments(logrows: int, columns: int = COLUMNS) -> CircuitArguments:
    return CircuitArguments(
        input_scale=SCALE,
        param_scale=SCALE,
        decomp_base=BASE,
        decomp_legs=LEGS,
        num_inner_cols=columns,
        logrows=logrows,
    )


def measure(
    data: bytes, chosen: CircuitArguments | None, *, hashed: bool, repeats: int, max_logrows: int
) -> dict[str, Any]:
    """Size a circuit and, if it is small enough, prove it with a made-up input.

    Args:
        data: The chunk model.
        chosen: Its arguments; None: the smallest logrows that it fits into.
        hashed: Whether its outputs are hashed; else they are private (no commitment at all).
        repeats: Proofs to make.
        max_logrows: Larger circuits are sized only.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "chunk-000.onnx"
        path.write_bytes(data)
        settings = _settings(path, chosen or arguments(20), hashed)
        if chosen is None:
            needed = max(settings.poseidon_rows, -(-settings.num_rows // 8), 256) + 8
            chosen = arguments(max(10, math.ceil(math.log2(needed))))
            settings = _settings(path, chosen, hashed)
        row: dict[str, Any] = {
            "logrows": chosen.logrows,
            "columns": chosen.num_inner_cols,
            "main_rows": settings.num_rows,
            "poseidon_rows": settings.poseidon_rows,
            "prove_cpu_s": None,
            "runs_cpu_s": [],
        }
        if chosen.logrows > max_logrows:
            return row
        (folder / "settings").write_bytes(settings.data)
        backend.compile_circuit(path, folder / "settings", folder / "circuit")
        srs = ensure_srs(chosen.logrows).path
        backend.setup_keys(folder / "circuit", srs, folder / "vk", folder / "pk")
        _witness(data, folder)
        for _ in range(repeats):
            started = time.process_time()
            _prove(folder, srs)
            row["runs_cpu_s"].append(time.process_time() - started)
        row["prove_cpu_s"] = min(row["runs_cpu_s"])
        row["pk_bytes"] = (folder / "pk").stat().st_size
        return row


def _settings(path: Path, chosen: CircuitArguments, hashed: bool) -> backend.Settings:
    args = backend.run_args(chosen)
    if not hashed:
        args.output_visibility = "private"
    return backend.settings_for(path, args)


def _witness(data: bytes, folder: Path) -> None:
    import ezkl

    generator = np.random.default_rng(0)
    tensors = []
    for value in onnx.load_model_from_string(data).graph.input:
        count = math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        tensors.append([float(v) for v in generator.random(count)])
    (folder / "input").write_text(str({"input_data": tensors}).replace("'", '"'))
    ezkl.gen_witness(str(folder / "input"), str(folder / "circuit"), str(folder / "witness"))


def _prove(folder: Path, srs: Path) -> None:
    import ezkl

    ezkl.prove(
        str(folder / "witness"),
        str(folder / "circuit"),
        str(folder / "pk"),
        str(folder / "proof"),
        str(srs),
    )


def relu(count: int) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [count]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "relu", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def boundary_rows(repeats: int, max_logrows: int) -> list[dict[str, Any]]:
    rows = []
    for count in SIZES:
        model = relu(count)
        data = model.SerializeToString()
        limits = {"repeats": repeats, "max_logrows": max_logrows}
        rows.append({"n": count, "kind": "none", **measure(data, None, hashed=False, **limits)})
        rows.append({"n": count, "kind": "hashed", **measure(data, None, hashed=True, **limits)})
        for factor, (inner, outer) in PACKS.items():
            spec = PackingSpec(
                decomp_base=BASE,
                decomp_legs=LEGS,
                stride_bits=STRIDE_BITS,
                inner=inner,
                outer=outer,
            )
            made = CommittedTensor(
                info=TensorInfo(name="y", shape=(count,), is_float=True),
                layout=LeafLayout.plan(count, spec),
            )
            committed = extract_chunk(ModelGraph(model), ["relu"], [], [made], SCALE)
            row = measure(_with_input(committed, count), None, hashed=True, **limits)
            rows.append({"n": count, "kind": f"ours, PACK {factor}", **row})
    return rows


def _with_input(data: bytes, count: int) -> bytes:
    """Add the ReLU's input, which is not a boundary here, in front of the salts."""
    model = onnx.load_model_from_string(data)
    salts = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [count]), *salts]
    )
    with_input: bytes = model.SerializeToString()
    return with_input


def lenet_rows(repeats: int, max_logrows: int) -> list[dict[str, Any]]:
    rows = []
    model = load_model(MODELS["lenet5"].path)
    circuits = plan(model, PlanOptions(scale=SCALE, layers_per_chunk=1, circuits="native"))
    graph = normalised_graph(model, {})
    limits = {"repeats": repeats, "max_logrows": max_logrows}
    for chunk in circuits.plan.chunks:
        committed = circuits.files[chunk.id].onnx
        plain = _without_commitments(graph, chunk.nodes, chunk.inputs, chunk.outputs)
        rows.append(
            {
                "chunk": chunk.id,
                "operators": " ".join(chunk.operators),
                "with": measure(committed, chunk.arguments, hashed=True, **limits),
                "without": measure(plain, chunk.arguments, hashed=False, **limits),
            }
        )
    return rows


def _without_commitments(
    graph: ModelGraph, nodes: tuple[str, ...], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> bytes:
    body = [graph.nodes[name] for name in nodes]
    used = {value for node in body for value in node.input}

    def infos(names: tuple[str, ...]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, list(graph.tensor(n).shape))
            for n in names
        ]

    weights = [graph.initializers[n] for n in sorted(used & graph.initializers.keys())]
    made = helper.make_graph(body, "plain", infos(inputs), infos(outputs), weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def show(console: Console, boundaries: list[dict[str, Any]], lenet: list[dict[str, Any]]) -> None:
    table = Table(title="one boundary of n elements, behind a ReLU")
    for column in (
        "n",
        "commitment",
        "logrows",
        "main rows",
        "Poseidon rows",
        "of hashed",
        "prove",
    ):
        table.add_column(column, justify="right")
    hashed = {row["n"]: row["poseidon_rows"] for row in boundaries if row["kind"] == "hashed"}
    for row in boundaries:
        table.add_row(
            str(row["n"]),
            row["kind"],
            str(row["logrows"]),
            f"{row['main_rows']:,}",
            f"{row['poseidon_rows']:,}",
            f"{row['poseidon_rows'] / hashed[row['n']]:.3f}",
            _seconds(row["prove_cpu_s"]),
        )
    console.print(table)
    table = Table(title="LeNet-5, same logrows and columns")
    for column in ("chunk", "operators", "logrows", "with", "without", "share of proving"):
        table.add_column(column, justify="right")
    for row in lenet:
        a, b = row["with"]["prove_cpu_s"], row["without"]["prove_cpu_s"]
        table.add_row(
            row["chunk"],
            row["operators"],
            str(row["with"]["logrows"]),
            _seconds(a),
            _seconds(b),
            "-" if a is None or b is None else f"{1 - b / a:.1%}",
        )
    console.print(table)
    console.print(f"all chunks together: {share(lenet):.1%} of proving is commitments")


def share(lenet: list[dict[str, Any]]) -> float:
    """Share of LeNet-5's proving time that commitments take, over the chunks that were proved."""
    proved = [row for row in lenet if row["with"]["prove_cpu_s"] is not None]
    if not proved:
        return math.nan
    total = sum(row["with"]["prove_cpu_s"] for row in proved)
    return 1 - sum(row["without"]["prove_cpu_s"] for row in proved) / float(total)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--max-logrows", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    lenet = lenet_rows(options.repeats, options.max_logrows)
    boundaries = boundary_rows(options.repeats, options.max_logrows)
    show(Console(), boundaries, lenet)
    record.write(
        options.out, {"boundaries": boundaries, "lenet5": lenet, "lenet5_share": share(lenet)}
    )


if __name__ == "__main__":
    main()

"""A model's integers: as one uncut circuit, and chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.native.lower import lower_nodes
from zkml_ray.chunking.normalize import normalise
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.commitments.field import to_signed
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.stages.accuracy import quantised_boundaries
from zkml_ray.stages.inputs import Arrays, quantise
from zkml_ray.stages.plan import PlanOptions, plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Integers:
    """A tensor's quantised elements, and the scale that gives them their meaning."""

    scale: int
    values: list[int]


def fixed_arguments(scale: int, *, multiplier: int = 1, logrows: int = 18) -> CircuitArguments:
    """Arguments that any small circuit fits, for witnesses that are never proved."""
    return CircuitArguments(
        input_scale=scale,
        param_scale=scale,
        scale_rebase_multiplier=multiplier,
        decomp_base=128,
        decomp_legs=4,
        num_inner_cols=5,
        logrows=logrows,
        lookup_range=(-(8 << scale), 8 << scale),
    )


def planned(proto: onnx.ModelProto, options: PlanOptions) -> tuple[ModelGraph, DerivedCircuits]:
    """A model's plan, and the graph that its chunks were cut from, rewrites included."""
    circuits = plan(parse_model(proto.SerializeToString(), "zoo.onnx"), options)
    return ModelGraph(onnx.ModelProto.FromString(circuits.normalised)), circuits


def lowered(graph: ModelGraph, scale: int, *, range_bits: int = 28) -> onnx.ModelProto:
    """A normalised model as one chunk's nodes become, without commitments."""
    made = lower_nodes(graph, list(graph.nodes), {}, scale=scale, range_bits=range_bits)
    given = graph.proto.graph
    body = helper.make_graph(
        made.nodes, "lowered", given.input, given.output, list(made.constants.values())
    )
    return helper.make_model(body, opset_imports=graph.proto.opset_import, ir_version=9)


def real_outputs(
    proto: onnx.ModelProto, arrays: Arrays, folder: Path, *, scale: int
) -> dict[str, npt.NDArray[np.float64]]:
    """What native circuits make of a model, normalised and lowered, as real numbers in shape."""
    graph = ModelGraph(normalise(proto, {}))
    integers = whole(graph, fixed_arguments(scale), arrays, folder)
    return {
        name: np.ldexp(np.array(found.values, dtype=np.float64), -found.scale).reshape(
            graph.tensor(name).shape
        )
        for name, found in integers.items()
    }


def whole(
    graph: ModelGraph, arguments: CircuitArguments, arrays: Arrays, folder: Path
) -> dict[str, Integers]:
    """The outputs of the uncut model as one circuit, without commitments."""
    path = folder / "whole.onnx"
    onnx.save(lowered(graph, arguments.input_scale), path)
    settings = backend.derive_settings(path, arguments)
    (folder / "settings.json").write_bytes(settings.data)
    backend.compile_circuit(path, folder / "settings.json", folder / "circuit.ezkl")
    packing = PackingSpec.for_decomposition(arguments.decomp_base, arguments.decomp_legs)
    witness = backend.generate_witness(
        "whole",
        [quantise(n, arrays[n], arguments.input_scale, packing) for n in graph.inputs],
        folder / "circuit.ezkl",
        folder / "witness.json",
    )
    return {
        name: Integers(scale=scale, values=[to_signed(value) for value in values])
        for name, scale, values in zip(
            graph.outputs, settings.output_scales, witness.outputs, strict=True
        )
    }


def chained(circuits: DerivedCircuits, arrays: Arrays, folder: Path) -> dict[str, Integers]:
    """Every boundary of a plan, chunk by chunk, commitments included."""
    cache = KeyCache(folder / "cache")
    compiled = {
        chunk_id: cache.circuit(files.onnx, files.settings)
        for chunk_id, files in circuits.files.items()
    }
    found = quantised_boundaries(circuits.plan, compiled.__getitem__, arrays)
    return {
        boundary.name: Integers(scale=boundary.scale, values=found[boundary.name])
        for boundary in circuits.plan.boundaries
    }

"""Stock ezkl, used as its documentation shows: the baselines of `versus_ezkl.py`.

A baseline is a folder of parts, one circuit each: `model.onnx`, `settings.json`, and what
`make_keys` adds. (a) has one part with the settings of ezkl's own calibration, (b) one part with
searched arguments (`benchmarks.tuning`), (c) one part per layer with hashed boundaries.

Settings must be made in a process of their own with one thread (docs/adr/0008), everything else
uses the cores that RAYON_NUM_THREADS gives.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ezkl
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from benchmarks.models.registry import BenchmarkModel, FloatArray
from benchmarks.processes import PhaseLog
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.partition import layer_partition
from zkml_ray.commitments.field import decode, to_signed
from zkml_ray.srs import ensure_srs

CALIBRATION_INPUTS: Final = 4
"""Inputs that ezkl's calibration sees: the last of the model's; the first ones are proved."""


def calibration_inputs(model: BenchmarkModel) -> FloatArray:
    """Shape [CALIBRATION_INPUTS, ...]."""
    return model.inputs()[-CALIBRATION_INPUTS:]


def input_json(tensors: Sequence[Any]) -> str:
    """An input file of ezkl: per tensor a flat list of floats or of field elements in hex."""
    return json.dumps({"input_data": [list(tensor) for tensor in tensors]})


def flat(tensor: npt.NDArray[Any]) -> list[float]:
    """A tensor as ezkl takes it."""
    return [float(value) for value in tensor.ravel()]


def default_settings(model: BenchmarkModel, folder: Path) -> dict[str, Any]:
    """(a): default arguments, then ezkl's own calibration with its default target "resources".

    Returns:
        The calibrated settings.
    """
    part = _new_part(folder, 0)
    shutil.copy(model.path, part / "model.onnx")
    ezkl.gen_settings(str(part / "model.onnx"), str(part / "settings.json"), ezkl.PyRunArgs())
    data = part / "calibration.json"
    data.write_text(input_json([flat(calibration_inputs(model))]))
    calibrate(part, data)
    settings: dict[str, Any] = json.loads((part / "settings.json").read_text())
    return settings


def calibrate(part: Path, data: Path, **choices: Any) -> None:
    """Run ezkl's calibration on a part's settings."""
    model, settings = str(part / "model.onnx"), str(part / "settings.json")
    ezkl.calibrate_settings(str(data), model, settings, "resources", **choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One part of a split model.

    Attributes:
        inputs: Tensors it reads.
        outputs: Tensors it makes.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def split_settings(model: BenchmarkModel, folder: Path) -> list[dict[str, Any]]:
    """(c): the split of ezkl's proof_splitting notebook, at the cuts of a layer-wise partition.

    Boundaries are hashed, the model's own input and output public, arguments default. As in the
    notebook, every part is calibrated at one common scale, so that hashes can agree; it is the one
    that calibration finds for the first part. Unlike the notebook, each part keeps its own logrows
    instead of the largest.

    Returns:
        The parts' settings.
    """
    graph = ModelGraph(onnx.shape_inference.infer_shapes(onnx.load(model.path)))
    pieces = split(graph)
    values = _float_values(graph, calibration_inputs(model), pieces)
    folder.mkdir(parents=True)
    scales: list[int] | None = None
    made = []
    for index, piece in enumerate(pieces):
        part = _new_part(folder, index)
        onnx.utils.extract_model(
            str(model.path), str(part / "model.onnx"), list(piece.inputs), list(piece.outputs)
        )
        arguments = ezkl.PyRunArgs()
        inner = not set(piece.inputs) <= set(graph.inputs)
        arguments.input_visibility = "hashed" if inner else "public"
        last = set(piece.outputs) <= set(graph.outputs)
        arguments.output_visibility = "public" if last else "hashed"
        ezkl.gen_settings(str(part / "model.onnx"), str(part / "settings.json"), arguments)
        data = part / "calibration.json"
        data.write_text(input_json([flat(values[name]) for name in piece.inputs]))
        calibrate(part, data, **({} if scales is None else {"scales": scales}))
        settings = json.loads((part / "settings.json").read_text())
        scales = scales or [settings["run_args"]["input_scale"]]
        made.append(settings)
    (folder / "pieces.json").write_text(
        json.dumps([{"inputs": piece.inputs, "outputs": piece.outputs} for piece in pieces])
    )
    return made


def split(graph: ModelGraph) -> list[Piece]:
    """The layer-wise parts of a model."""
    parts = layer_partition(graph)
    crossings = graph.crossings(parts)
    return [
        Piece(
            inputs=tuple(c.tensor.name for c in crossings if index in c.consumers),
            outputs=tuple(c.tensor.name for c in crossings if c.producer == index),
        )
        for index in range(len(parts))
    ]


def _float_values(
    graph: ModelGraph, inputs: FloatArray, pieces: Sequence[Piece]
) -> Mapping[str, npt.NDArray[np.float32]]:
    """The float model's boundary tensors on several inputs, one after the other (flat)."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.proto)
    names = [name for piece in pieces for name in piece.outputs]
    known = {output.name for output in model.graph.output}
    inner = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(inner[name] for name in names if name not in known)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = graph.inputs[0]
    rows = [session.run(names, {name: one[None]}) for one in inputs]
    values = {
        made: np.concatenate([np.asarray(row[index]).ravel() for row in rows])
        for index, made in enumerate(names)
    }
    return {name: inputs.ravel(), **values}


def compile_part(part: Path) -> None:
    """Compile a part with its settings."""
    model, settings = str(part / "model.onnx"), str(part / "settings.json")
    ezkl.compile_circuit(model, str(part / "circuit"), settings)


def make_keys(folder: Path, log: PhaseLog) -> None:
    """Compile every part and make its keys; the SRS of each size is made first and not counted."""
    parts = parts_of(folder)
    srs = {part: ensure_srs(_logrows(part)).path for part in parts}
    with log.phase("setup"):
        for part in parts:
            compile_part(part)
            ezkl.setup(str(part / "circuit"), str(part / "vk"), str(part / "pk"), str(srs[part]))
    log.facts["proving_key_bytes"] = sum((part / "pk").stat().st_size for part in parts)
    log.facts["logrows"] = [_logrows(part) for part in parts]


def prove_input(folder: Path, scratch: Path, sample: FloatArray, log: PhaseLog) -> None:
    """Witness, prove and verify every part for one input, one part after the other.

    Args:
        folder: The baseline, with keys.
        scratch: For witnesses and proofs.
        sample: The model's input, without the batch dimension.
        log: Gets the phases, the outputs, the proofs' size, and whether hashes agree.
    """
    parts = parts_of(folder)
    srs = {part: ensure_srs(_logrows(part)).path for part in parts}
    with log.phase("witness"):
        outputs, linked = _witnesses(folder, parts, scratch, sample)
    with log.phase("prove"):
        for index, part in enumerate(parts):
            ezkl.prove(
                str(scratch / f"witness-{index}.json"),
                str(part / "circuit"),
                str(part / "pk"),
                str(scratch / f"proof-{index}.json"),
                str(srs[part]),
            )
    with log.phase("verify"):
        for index, part in enumerate(parts):
            proof = str(scratch / f"proof-{index}.json")
            settings, key = str(part / "settings.json"), str(part / "vk")
            if not ezkl.verify(proof, settings, key, str(srs[part])):
                raise RuntimeError(f"the proof of part {index} does not verify")
    proofs = [
        json.loads((scratch / f"proof-{index}.json").read_text()) for index in range(len(parts))
    ]
    log.facts["outputs"] = outputs
    log.facts["linked"] = linked
    log.facts["proof_bytes"] = sum(len(proof["hex_proof"]) // 2 - 1 for proof in proofs)
    log.facts["circuits"] = len(parts)


def _witnesses(
    folder: Path, parts: Sequence[Path], scratch: Path, sample: FloatArray
) -> tuple[list[float], bool]:
    """Witness files of all parts; the last part's outputs; whether equal tensors hash equally."""
    pieces = [Piece(inputs=("input",), outputs=("output",))]
    if (folder / "pieces.json").exists():
        raw = json.loads((folder / "pieces.json").read_text())
        pieces = [Piece(inputs=tuple(p["inputs"]), outputs=tuple(p["outputs"])) for p in raw]
    tensors: dict[str, Sequence[Any]] = {}
    hashes: dict[str, set[str]] = {}
    outputs: list[float] = []
    for index, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        data, made = scratch / f"input-{index}.json", scratch / f"witness-{index}.json"
        data.write_text(input_json([tensors.get(name) or flat(sample) for name in piece.inputs]))
        ezkl.gen_witness(str(data), str(part / "circuit"), str(made))
        witness = json.loads(made.read_text())
        tensors |= dict(zip(piece.outputs, witness["outputs"], strict=True))
        for names, key in ((piece.inputs, "inputs"), (piece.outputs, "outputs")):
            shown = (witness[f"processed_{key}"] or {}).get("poseidon_hash")
            for name, found in zip(names, shown or [], strict=bool(shown)):
                hashes.setdefault(name, set()).add(str(found))
        scale = json.loads((part / "settings.json").read_text())["model_output_scales"][0]
        outputs = [to_signed(decode(value)) / 2.0**scale for value in witness["outputs"][0]]
    return outputs, all(len(found) == 1 for found in hashes.values())


def parts_of(folder: Path) -> list[Path]:
    """A baseline's parts, in order."""
    return sorted(folder.glob("part-*"))


def _new_part(folder: Path, index: int) -> Path:
    part = folder / f"part-{index:03d}"
    part.mkdir(parents=True)
    return part


def _logrows(part: Path) -> int:
    settings = json.loads((part / "settings.json").read_text())
    logrows: int = settings["run_args"]["logrows"]
    return logrows

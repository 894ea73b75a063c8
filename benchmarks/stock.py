"""Stock ezkl, used as its documentation shows: the baselines of `versus_ezkl.py`.

A baseline is a folder of parts, one circuit each: `model.onnx`, `settings.json`, and what
`make_keys` adds. (a) has one part with the settings of ezkl's own calibration, (b) one part with
searched arguments (`benchmarks.tuning`), (c) one part per layer with hashed boundaries.

Settings must be made in a process of their own with one thread (docs/adr/0008), everything else
uses the cores that RAYON_NUM_THREADS gives.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
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
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.commitments.field import decode, to_signed

CALIBRATION_INPUTS: Final = 4
"""Inputs that ezkl's calibration sees: the last of the model's; the first ones are proved."""

SPLIT_SCALES: Final = (13, 12, 11)
"""What ezkl's calibration tries where it is given no scales, the most accurate first."""


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


def split_settings(
    model: BenchmarkModel, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(c): the split of ezkl's proof_splitting notebook, at the cuts of a layer-wise partition.

    Boundaries are hashed, the model's own input and output public, arguments default. As in the
    notebook every part is calibrated, at one scale that is chosen by hand: here the largest of
    calibration's own candidates at which the parts work one after the other. Unlike the notebook,
    each part keeps its own logrows instead of the largest.

    The notebook lets calibration choose the rebase multiplier. Where it takes 10, a part ends at
    another scale than the next one reads (26 after 13), and nothing in the notebook carries that
    over: the next witness fails, or its numbers are wrong. The remedy that a user would find is
    to calibrate with multiplier 1. It is used only where the notebook to the letter does not work.

    Returns:
        The parts' settings, none where the split works at no scale; and what was tried: scale,
        multipliers and the reason of a failure.
    """
    graph = ModelGraph(onnx.shape_inference.infer_shapes(onnx.load(model.path)))
    pieces = split(graph)
    inputs = calibration_inputs(model)
    values = _float_values(graph, inputs, pieces)
    tried = []
    for scale, remedy in itertools.product(SPLIT_SCALES, (False, True)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "pieces.json").write_text(
            json.dumps([{"inputs": piece.inputs, "outputs": piece.outputs} for piece in pieces])
        )
        more: dict[str, Any] = {"scale_rebase_multiplier": [1]} if remedy else {}
        made: list[dict[str, Any]] = []
        try:
            for index, piece in enumerate(pieces):
                arguments = ezkl.PyRunArgs()
                inner = not set(piece.inputs) <= set(graph.inputs)
                arguments.input_visibility = "hashed" if inner else "public"
                last = set(piece.outputs) <= set(graph.outputs)
                arguments.output_visibility = "public" if last else "hashed"
                part = _new_part(folder, index)
                onnx.utils.extract_model(
                    str(model.path), str(part / "model.onnx"), piece.inputs, piece.outputs
                )
                settings, data = part / "settings.json", part / "calibration.json"
                ezkl.gen_settings(str(part / "model.onnx"), str(settings), arguments)
                data.write_text(input_json([flat(values[name]) for name in piece.inputs]))
                calibrate(part, data, scales=[scale], **more)
                made.append(json.loads(settings.read_text()))
                compile_part(part)
            failure = mismatch(pieces, made) or _walk(folder, inputs)
        except RuntimeError as error:
            failure = f"part {index}: {error}"
        tried.append(
            {
                "scale": scale,
                "to_the_letter": not remedy,
                "multipliers": [one["run_args"]["scale_rebase_multiplier"] for one in made],
                "failure": failure,
            }
        )
        if not failure:
            return made, tried
    return [], tried


def mismatch(pieces: Sequence[Piece], settings: Sequence[Mapping[str, Any]]) -> str:
    """Where one part's output has another scale than a later part reads it at; "" if nowhere.

    Args:
        pieces: The parts.
        settings: ezkl's, of every part.
    """
    made: dict[str, tuple[int, int]] = {}
    for index, (piece, found) in enumerate(zip(pieces, settings, strict=True)):
        for name, scale in zip(piece.inputs, found["model_input_scales"], strict=True):
            producer, given = made.get(name, (index, scale))
            if given != scale:
                return (
                    f"part {producer} gives {name} at scale {given}, part {index} reads it at "
                    f"scale {scale}"
                )
        scales = found["model_output_scales"]
        made |= {n: (index, s) for n, s in zip(piece.outputs, scales, strict=True)}
    return ""


def _walk(folder: Path, inputs: FloatArray) -> str:
    """Why the compiled parts cannot be run one after the other on some inputs; "" if they can."""
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
        for sample in inputs:
            try:
                _, linked = _witnesses(folder, parts_of(folder), Path(scratch), sample)
            except RuntimeError as error:
                return str(error)
            if not linked:
                return "a boundary hashes differently in the parts that it joins"
    return ""


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

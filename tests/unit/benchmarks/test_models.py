"""The benchmark models: files are what their scripts make, and do what they claim."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.models.encoder import EncoderSize, build_encoder
from benchmarks.models.lenet import upscale
from benchmarks.models.registry import MODELS, SEEDED

MODELS_FOLDER = MODELS["lenet5"].path.parent


def outputs(model: Path | bytes, inputs: np.ndarray) -> np.ndarray:
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: one[None]})[0] for one in inputs])


@pytest.mark.parametrize("name", sorted(SEEDED))
def test_a_seeded_file_holds_what_its_builder_makes(name: str):
    """By values, not bytes: the random generator's last bits may differ between numpy versions."""
    inputs = MODELS[name].inputs()[:2]
    built = outputs(SEEDED[name]().SerializeToString(), inputs)
    np.testing.assert_allclose(outputs(MODELS[name].path, inputs), built, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_is_small_and_takes_its_inputs(name: str):
    model = MODELS[name]
    assert model.path.stat().st_size < 1_000_000
    assert np.isfinite(outputs(model.path, model.inputs()[:1])).all()


def test_lenet5_has_the_recorded_accuracy_on_the_held_out_images():
    model = MODELS["lenet5"]
    assert model.labels is not None
    found = outputs(model.path, model.inputs()).argmax(axis=1) == model.labels()
    recorded = json.loads((MODELS_FOLDER / "lenet5.json").read_text())["accuracy"]["held_out"]
    assert found.mean() == recorded


def test_upscaling_keeps_flat_images_flat_and_copies_no_seam():
    flat = np.full((1, 1, 8, 8), 0.25, dtype=np.float32)
    np.testing.assert_allclose(upscale(flat), 0.25, rtol=1e-6)
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32), (1, 1, 8, 8))
    steps = np.diff(upscale(ramp)[0, 0, 14])
    assert upscale(ramp).shape == (1, 1, 28, 28)
    np.testing.assert_allclose(steps[2:-2], 8 / 28, rtol=1e-5)
    assert (steps >= 0).all()


def test_an_encoder_s_layers_are_those_of_a_shorter_one():
    size = {"width": 8, "heads": 2, "hidden": 16, "tokens": 3}
    one = build_encoder(EncoderSize(layers=1, **size))
    two = build_encoder(EncoderSize(layers=2, **size))
    short = {tensor.name: tensor for tensor in one.graph.initializer}
    long = {tensor.name: tensor for tensor in two.graph.initializer}
    assert short.keys() < long.keys()
    for name, tensor in short.items():
        assert (onnx.numpy_helper.to_array(tensor) == onnx.numpy_helper.to_array(long[name])).all()


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads"):
        build_encoder(EncoderSize(width=8, heads=3))

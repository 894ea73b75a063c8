"""The main job on real handwritten digits."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.layers import BY_LAYER
from tests.unit.chunking.builders import run as run_float
from zkml_ray import prove_distributed, verify
from zkml_ray.api import Run
from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.commitments.leaves import draw_salts
from zkml_ray.schema.manifest import ChunkRecord
from zkml_ray.stages.inputs import quantise
from zkml_ray.stages.plan import plan
from zkml_ray.stages.witness import BoundaryValues, forward

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SHARED = "seven"
IMAGES = 100
QUANTISATION = 0.05
"""No logit of the digits model moves further than this by quantisation, as measured."""

Image = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model(digits: Path) -> LoadedModel:
    return load_model(digits / "digits.onnx")


@pytest.fixture(scope="module")
def float_logits(model: LoadedModel) -> Callable[[Image], npt.NDArray[np.float32]]:
    name = model.proto.graph.input[0].name

    def logits(image: Image) -> npt.NDArray[np.float32]:
        (values,) = run_float(model.proto, {name: image.reshape(1, 1, 8, 8)}).values()
        return values.ravel()

    return logits


@pytest.fixture(scope="module")
def proved_logits(model: LoadedModel) -> Callable[[Image], npt.NDArray[np.float64]]:
    """The chain of circuits, witnesses only: the integers that a proof would be about."""
    circuits = plan(model, BY_LAYER)
    boundaries = {boundary.name: boundary for boundary in circuits.plan.boundaries}
    cache = KeyCache()
    compiled = {
        chunk.id: cache.circuit(circuits.files[chunk.id].onnx, circuits.files[chunk.id].settings)
        for chunk in circuits.plan.chunks
    }
    salts = {
        name: draw_salts(boundary.layout.layout(), seed=b"test", label=name)
        for name, boundary in boundaries.items()
    }
    (source,), (end,) = circuits.plan.model_inputs, circuits.plan.model_outputs

    def logits(image: Image) -> npt.NDArray[np.float64]:
        packing = boundaries[source].layout.layout().packing
        values = quantise(source, image, boundaries[source].scale, packing)
        known = {source: BoundaryValues(values=values, salts=salts[source])}
        for chunk in circuits.plan.chunks:
            with tempfile.TemporaryDirectory() as folder:
                made = forward(
                    chunk,
                    boundaries,
                    compiled[chunk.id],
                    {name: known[name] for name in chunk.inputs},
                    {name: salts[name] for name in chunk.outputs},
                    Path(folder) / "witness.json",
                )
            known.update(made.outgoing)
        return np.array(known[end].values, dtype=np.float64) / (1 << boundaries[end].scale)

    return logits


def sample(digits: Path, digit: str) -> Image:
    document = json.loads((digits / f"{digit}.json").read_text())
    return np.array(document["input_data"][0], dtype=np.float32)


@pytest.mark.parametrize("digit", DIGITS)
def test_quantised_class_of_a_sample_image_is_the_float_models(
    digit: str,
    digits: Path,
    float_logits: Callable[[Image], npt.NDArray[np.float32]],
    proved_logits: Callable[[Image], npt.NDArray[np.float64]],
) -> None:
    image = sample(digits, digit)
    expected, got = float_logits(image), proved_logits(image)
    np.testing.assert_allclose(got, expected, atol=QUANTISATION)
    assert got.argmax() == expected.argmax() == DIGITS.index(digit)


def test_quantised_class_of_test_images_is_the_float_models_but_for_near_ties(
    digits: Path,
    float_logits: Callable[[Image], npt.NDArray[np.float32]],
    proved_logits: Callable[[Image], npt.NDArray[np.float64]],
) -> None:
    images = np.load(digits / "test_images.npz")["images"][:IMAGES]
    agreements = 0
    for image in images:
        expected, got = float_logits(image), proved_logits(image)
        np.testing.assert_allclose(got, expected, atol=QUANTISATION)
        first, second = np.sort(expected)[-1], np.sort(expected)[-2]
        same = got.argmax() == expected.argmax()
        assert same or first - second <= 2 * QUANTISATION
        agreements += same
    assert agreements >= IMAGES - 1


@pytest.mark.ray
def test_proved_class_of_a_real_digit_is_that_of_onnxruntime(
    digits_run: Run, digits: Path, float_logits: Callable[[Image], npt.NDArray[np.float32]]
) -> None:
    expected = float_logits(sample(digits, SHARED)).argmax()
    assert digits_run.verified
    assert digits_run.outputs["logits"].argmax() == expected == DIGITS.index(SHARED)
    assert digits_run.manifest.input_source.kind == "given"


@pytest.mark.ray
def test_proved_output_is_the_quantised_forward_pass_bit_for_bit(
    digits_run: Run, digits: Path, proved_logits: Callable[[Image], npt.NDArray[np.float64]]
) -> None:
    expected = proved_logits(sample(digits, SHARED))
    np.testing.assert_array_equal(digits_run.outputs["logits"].ravel(), expected)


def overlap_s(a: ChunkRecord, b: ChunkRecord) -> float:
    return min(a.prove.ended_s, b.prove.ended_s) - max(a.prove.started_s, b.prove.started_s)


@pytest.mark.ray
def test_two_processes_prove_at_the_same_time(digits_run: Run) -> None:
    records = digits_run.manifest.chunks
    assert {record.worker for record in records} == {"worker-0", "worker-1"}
    assert len({record.pid for record in records}) == 2
    assert os.getpid() not in {record.pid for record in records}
    overlaps = [overlap_s(a, b) for a, b in combinations(records, 2) if a.pid != b.pid]
    assert max(overlaps) > 0.1
    same = [overlap_s(a, b) for a, b in combinations(records, 2) if a.pid == b.pid]
    assert all(seconds <= 0 for seconds in same), "one process proved two chunks at once"


@pytest.mark.ray
def test_timings_of_a_run_are_in_order(digits_run: Run) -> None:
    stages = {stage.stage: stage.span for stage in digits_run.manifest.stages}
    first = min(record.setup.started_s for record in digits_run.manifest.chunks)
    assert stages["prove"].started_s <= first < stages["prove"].ended_s
    for record in digits_run.manifest.chunks:
        assert record.setup.started_s <= record.witness.started_s <= record.prove.started_s
        assert record.prove.ended_s <= stages["prove"].ended_s


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("digit", [digit for digit in DIGITS if digit != SHARED])
def test_proved_class_of_every_other_digit_is_that_of_onnxruntime(
    digit: str,
    ray_cluster: None,
    digits: Path,
    tmp_path: Path,
    float_logits: Callable[[Image], npt.NDArray[np.float32]],
) -> None:
    model = digits / "digits.onnx"
    run = prove_distributed(model, 2, digits / f"{digit}.json", store=tmp_path, run_id=digit)
    verdict = verify(digit, store=tmp_path, model=model, allow_insecure_srs=True)
    expected = float_logits(sample(digits, digit)).argmax()
    assert np.argmax(verdict.revealed["logits"]) == expected == DIGITS.index(digit)
    assert run.outputs["logits"].argmax() == expected

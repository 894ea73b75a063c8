"""Every architecture of the zoo: split equals whole, near the float model, proved and linked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import zoo
from tests.zoo.quantised import chained, fixed_arguments, planned, whole
from zkml_ray import PlanOptions, prove_distributed, verify
from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.stages.accuracy import measure_accuracy, read_samples
from zkml_ray.stages.reference import float_outputs

SCALE = {"transformer": 8}
DEFAULT_SCALE = 10

# The largest difference of an output's integers. tract multiplies the parts of a concatenation by
# the parts of the weights where no cut lies between: more roundings. In the transformer a cut takes
# away the fusion of a division with the product before it.
ROUNDINGS = {"two_inputs": 1, "transformer": 1}

SLOW = {"lenet5", "deep_mlp", "transformer", "inception", "resnet"}
"""Proofs of these take longer than ten seconds on two cores; mlp and residual are proved by the
shared runs of tests/conftest.py."""


def options(name: str) -> PlanOptions:
    """One layer a chunk: every cut that could matter."""
    return PlanOptions(scale=SCALE.get(name, DEFAULT_SCALE), layers_per_chunk=1)


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_quantised_chunk_by_chunk_is_quantised_whole(name: str, tmp_path: Path) -> None:
    bare = replace(options(name), passes=(), circuits="native")
    graph, circuits = planned(zoo.MODELS[name](), bare)
    arguments = fixed_arguments(bare.scale, logrows=20)
    (arrays, *_) = read_samples(graph, [], seed=5)
    expected = whole(graph, arguments, arrays, tmp_path)
    got = chained(circuits, arrays, tmp_path)
    for output in graph.outputs:
        assert got[output].scale == expected[output].scale
        off = np.subtract(got[output].values, expected[output].values)
        assert np.abs(off).max() <= ROUNDINGS.get(name, 0)


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_output_is_within_the_reported_error_of_onnxruntime(name: str, tmp_path: Path) -> None:
    model = parse_model(zoo.MODELS[name]().SerializeToString(), name)
    graph, circuits = planned(model.proto, options(name))
    (arrays, *_) = read_samples(graph, [], seed=5)
    report = measure_accuracy(model, circuits, [arrays], random=True)
    assert report.max_abs_error < (0.05 if name == "transformer" else 0.01)
    reported = {entry.name: entry.max_abs_error for entry in report.boundaries}
    exact = float_outputs(normalised_graph(model, {}), arrays)
    got = chained(circuits, arrays, tmp_path)
    for output in graph.outputs:
        real = np.array(got[output].values) / 2.0 ** got[output].scale
        error = np.abs(real - exact[output].ravel()).max()
        assert error == pytest.approx(reported[output], rel=1e-6, abs=1e-9)


@pytest.mark.ray
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in sorted(set(zoo.MODELS) - {"mlp", "residual"})
    ],
)
def test_proofs_are_made_linked_and_verified_against_the_model(
    name: str, ray_cluster: None, models: Path, tmp_path: Path
) -> None:
    model = models / f"{name}.onnx"
    run = prove_distributed(model, workers=2, store=tmp_path, options=options(name))
    assert run.verified
    verdict = verify(run.run_id, store=tmp_path, model=model, allow_insecure_srs=True)
    assert verdict.ok

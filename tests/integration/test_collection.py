"""The collection of small graphs: planned without options, right beside onnxruntime, proved."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.zoo.collection import EXAMPLES
from zkml_ray import prove_distributed, verify
from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.inputs import read_inputs
from zkml_ray.stages.plan import PlanOptions, plan

FAST: Final = frozenset(
    {
        *("relu", "leaky_relu", "prelu", "hard_sigmoid", "hard_swish", "abs", "neg"),
        *("clip_by_attribute", "square", "divided", "divided_by_little"),
        *("product_and_quotient", "mean", "variance", "largest", "smallest", "l1", "softmax"),
        *("largest_class", "identity", "concat", "flatten", "reshape", "pad", "slice"),
        *(
            "transpose",
            "upsample",
            "padded_as_computed",
            "resize_linear",
            "lower_triangle",
            "upper_triangle",
        ),
        *("eye", "window", "depth_to_space", "linear", "conv", "downsample"),
        *("conv_transposed", "batch_norm", "instance_norm", "layer_norm", "max_pool"),
        *("average_pool", "mlp_one", "mlp_four", "mlp_prelu", "mlp_deep"),
        *("weights_from_shapes", "relu_twice", "cnn_one_dense", "cnn_two_dense"),
        *("cnn_reshaped", "trend_and_season", "self_attention", "linear_in_double", "less"),
        *("floor", "sqrt"),
    }
)
"""Planned and compared in about a second each; native circuits take longer to choose."""

PROVED: Final = sorted(
    FAST - {"identity", "relu_twice", "upper_triangle", "eye"}
    | {
        *("sigmoid", "tanh", "where", "top_two", "truth", "rnn", "decision_tree", "covariances"),
        *("lstm", "unet_nearest", "unet_linear"),
    }
)
"""One of every kind whose proof takes seconds."""

SCALE: Final = 7
"""A hinted circuit has at least 2^(scale + 2) rows."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in sorted(EXAMPLES)],
)
def test_a_graph_of_the_collection_is_planned_without_options_and_right(name: str) -> None:
    example = EXAMPLES[name]
    model = parse_model(example.model().SerializeToString(), f"{name}.onnx")
    circuits = plan(model, PlanOptions())
    graph = normalised_graph(model, dict(circuits.plan.dimensions))
    samples = [read_inputs(graph, example.arrays(seed)).arrays for seed in (1, 2)]
    report = measure_accuracy(model, circuits, samples)
    assert report.warning is None
    assert report.max_abs_error < 0.05


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", PROVED)
def test_a_graph_of_the_collection_is_proved_and_verified(
    name: str, ray_cluster: None, tmp_path: Path
) -> None:
    example = EXAMPLES[name]
    path = tmp_path / f"{name}.onnx"
    onnx.save(example.model(), path)
    arrays = example.arrays(seed=1)
    run = prove_distributed(
        path, workers=2, inputs=arrays, store=tmp_path / "store", options=PlanOptions(scale=SCALE)
    )
    verdict = verify(run.run_id, store=tmp_path / "store", model=path, allow_insecure_srs=True)
    assert verdict.ok
    assert run.verified


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_onnxruntime_runs_a_graph_of_the_collection(name: str) -> None:
    example = EXAMPLES[name]
    session = ort.InferenceSession(example.model().SerializeToString())
    for values in session.run(None, example.arrays(seed=1)):
        assert np.isfinite(np.asarray(values, dtype=np.float64)).all()

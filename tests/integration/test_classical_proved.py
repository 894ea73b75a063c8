"""Trees as exporters write them: decided in a circuit as in onnxruntime, proved and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.unit.chunking.builders import run
from tests.unit.chunking.classical import FLOAT, INT64, MODES, grown, model, node, weighted
from tests.zoo.quantised import real_outputs
from zkml_ray import PlanOptions, prove_distributed
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normalize import normalise
from zkml_ray.stages.accuracy import measure_accuracy
from zkml_ray.stages.plan import CircuitKind, plan

FEATURES = 4


def forest(
    seed: int, *, trees: int, depth: int, classes: int, modes: tuple[str, ...] = ("BRANCH_LEQ",)
) -> onnx.ModelProto:
    """What scikit-learn's random forests are exported as: shares of classes, and a label."""
    random = np.random.default_rng(seed)
    grows = grown(seed, trees=trees, depth=depth, features=FEATURES, modes=modes)
    values = grows.nodes["nodes_values"]
    grows.nodes["nodes_values"] = [float(v) for v in np.float32(random.random(len(values)))]
    more = weighted(grows, "class", range(classes))
    shares = random.dirichlet(np.ones(classes), len(grows.leaves)) / trees
    more["class_weights"] = [float(share) for share in shares.reshape(-1)]
    made = node(
        "TreeEnsembleClassifier",
        to=["label", "shares"],
        classlabels_int64s=list(range(classes)),
        **more,
    )
    return model([made], {"label": INT64, "shares": FLOAT}, (1, FEATURES))


def boosted(seed: int, *, trees: int, depth: int) -> onnx.ModelProto:
    """What XGBoost's classifiers are exported as: one score, and a logistic function."""
    grows = grown(seed, trees=trees, depth=depth, features=FEATURES, modes=("BRANCH_LT",))
    random = np.random.default_rng(seed)
    count = len(grows.nodes["nodes_values"])
    grows.nodes["nodes_values"] = [float(v) for v in np.float32(random.random(count))]
    made = node(
        "TreeEnsembleClassifier",
        to=["label", "shares"],
        classlabels_int64s=[0, 1],
        base_values=[0.25],
        post_transform="LOGISTIC",
        **weighted(grows, "class", [0], seed),
    )
    return model([made], {"label": INT64, "shares": FLOAT}, (1, FEATURES))


def at_thresholds(proto: onnx.ModelProto, seed: int) -> npt.NDArray[Any]:
    """Inputs that are thresholds of the model's."""
    (values,) = [a.floats for a in proto.graph.node[0].attribute if a.name == "nodes_values"]
    random = np.random.default_rng(seed)
    return random.choice(np.float32(values), (1, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("modes", [(mode,) for mode in MODES] + [MODES], ids=str)
def test_an_input_that_is_a_threshold_is_decided_as_onnxruntime_does(
    modes: tuple[str, ...], tmp_path: Path
) -> None:
    proto = forest(3, trees=3, depth=4, classes=3, modes=modes)
    normal = normalise(proto, {})
    for seed in range(4):
        feeds = {"x": at_thresholds(proto, seed)}
        found = real_outputs(normal, feeds, tmp_path, scale=10)["shares"]
        np.testing.assert_allclose(found, run(proto, feeds)["shares"], atol=2 / 2**10)


@pytest.mark.parametrize("circuits", ["hinted", "native"])
@pytest.mark.parametrize("modes", [("BRANCH_LEQ",), ("BRANCH_LT",), MODES], ids=str)
def test_both_kinds_of_circuits_decide_thresholds_alike(
    circuits: CircuitKind, modes: tuple[str, ...]
) -> None:
    proto = forest(4, trees=2, depth=3, classes=2, modes=modes)
    loaded = parse_model(proto.SerializeToString(), "trees.onnx")
    made = plan(loaded, PlanOptions(circuits=circuits, layers_per_chunk=100))
    assert {chunk.arguments.kind for chunk in made.plan.chunks} == {circuits}
    samples = [{"x": at_thresholds(proto, seed)} for seed in range(6)]
    assert measure_accuracy(loaded, made, samples).max_abs_error < 2 / 2**10


@pytest.mark.parametrize("scale", [8, 12])
def test_a_grid_of_inputs_is_decided_exactly_at_every_scale(scale: int, tmp_path: Path) -> None:
    """Thresholds and inputs are multiples of 1/4, equal often."""
    made = node(
        "TreeEnsembleRegressor",
        n_targets=2,
        aggregate_function="MIN",
        **weighted(grown(8, trees=2, depth=4), "target", [0, 1]),
    )
    proto = model([made], {"y": FLOAT}, (3, FEATURES))
    normal = normalise(proto, {})
    for seed in range(3):
        x = np.random.default_rng(seed).integers(-5, 6, (3, FEATURES)) / 4
        feeds = {"x": x.astype(np.float32)}
        found = real_outputs(normal, feeds, tmp_path, scale=scale)["y"]
        np.testing.assert_array_equal(found, run(proto, feeds)["y"])


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("tree", lambda: forest(5, trees=1, depth=3, classes=3)),
        pytest.param(
            "random forest",
            lambda: forest(6, trees=80, depth=6, classes=3),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "boosted trees", lambda: boosted(7, trees=30, depth=4), marks=pytest.mark.slow
        ),
    ],
)
def test_trees_are_proved_and_verified_against_the_model(
    name: str, make: Any, ray_cluster: None, tmp_path: Path
) -> None:
    path = tmp_path / "trees.onnx"
    onnx.save(make(), path)
    run_ = prove_distributed(path, workers=2, store=tmp_path / "store", options=PlanOptions())
    assert run_.verified
    assert run_.plan.model_outputs == ("shares",)

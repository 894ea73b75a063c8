"""The default choice of rewrites: where they pay, how many weight bits, which passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.unit.chunking.builders import model, random_feeds, run, weight
from zkml_ray.chunking.choose import default_rewrites
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.rewrite import PASSES, apply_rewrites, find_places
from zkml_ray.errors import ChunkingError, ConfigError
from zkml_ray.limits import MIN_WEIGHT_BITS
from zkml_ray.stages.plan import PlanOptions

LENET = Path(__file__).parents[3] / "benchmarks" / "models" / "lenet5.onnx"


def lenet() -> onnx.ModelProto:
    return normalise(onnx.load(LENET), {})


def scaled_conv(factor: float) -> onnx.ModelProto:
    values = np.full((2, 1, 3, 3), factor / 3, dtype=np.float32)
    proto = model(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"x": [1, 1, 5, 5]},
        {"y": [1, 2, 3, 3]},
        [numpy_helper.from_array(values, "w")],
    )
    return normalise(proto, {})


def test_lenet_is_rewritten_everywhere_it_pays() -> None:
    chosen = [(rewrite.name, rewrite.node) for rewrite in default_rewrites(lenet(), weight_bits=10)]
    assert chosen == [
        ("conv-im2col", "conv1"),
        ("conv-im2col", "conv2"),
        ("dense-integer", "fc1"),
        ("dense-integer", "fc2"),
        ("maxpool-pairwise", "pool1"),
        ("maxpool-pairwise", "pool2"),
        ("relu-abs", "relu1/pooled"),
        ("relu-abs", "relu2/pooled"),
        ("relu-abs", "relu3"),
        ("relu-abs", "relu4"),
    ]


def test_rewritten_lenet_is_the_model_within_weight_rounding() -> None:
    proto = lenet()
    made = apply_rewrites(proto, default_rewrites(proto, weight_bits=10))
    feeds = random_feeds({"image": [1, 1, 28, 28]})
    np.testing.assert_allclose(run(made, feeds)["logits"], run(proto, feeds)["logits"], atol=0.02)


@pytest.mark.parametrize("name", sorted(PASSES))
def test_a_pass_that_is_left_out_is_not_used(name: str) -> None:
    others = [other for other in PASSES if other != name]
    assert name not in {r.name for r in default_rewrites(lenet(), weight_bits=10, passes=others)}


def test_no_pass_leaves_the_model_as_it_is() -> None:
    assert default_rewrites(lenet(), weight_bits=10, passes=()) == []


@pytest.mark.parametrize(("factor", "bits"), [(0.1, 10), (1.0, 10), (4.0, 9), (16.0, 7)])
def test_weight_bits_are_the_scale_unless_sums_would_leave_the_range(
    factor: float, bits: int
) -> None:
    (rewrite,) = default_rewrites(scaled_conv(factor), weight_bits=10)
    assert rewrite.parameter == bits >= MIN_WEIGHT_BITS


@pytest.mark.parametrize("factor", [32.0, 64.0, 3000.0])
def test_rewrite_that_would_keep_fewer_weight_bits_than_verifiers_demand_is_left_out(
    factor: float,
) -> None:
    assert default_rewrites(scaled_conv(factor), weight_bits=10) == []
    assert default_rewrites(scaled_conv(1.0), weight_bits=3) == []  # no pass takes so few


def test_rewrites_below_the_floor_follow_a_scale_that_is_below_it() -> None:
    (rewrite,) = default_rewrites(scaled_conv(1.0), weight_bits=5)
    assert rewrite.parameter == 5


def test_convolution_with_one_output_position_and_lone_products_stay_native() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Flatten", ["a"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "v"], ["y"], "fc"),
    ]
    weights = [weight("w", 2, 1, 3, 3), weight("v", 2, 4)]
    proto = normalise(model(nodes, {"x": [1, 1, 3, 3]}, {"y": [1, 4]}, weights), {})
    assert find_places(proto, "conv-im2col")
    assert default_rewrites(proto, weight_bits=10) == []


def test_plan_options_refuse_a_pass_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="no pass magic"):
        PlanOptions(passes=("magic",))


def test_plan_options_keep_passes_in_their_document() -> None:
    for passes in (None, (), ("relu-abs",)):
        options = PlanOptions(passes=passes)
        assert PlanOptions.of(options.choices()) == options


def test_a_plan_may_name_no_parameter_that_a_pass_does_not_take() -> None:
    proto = lenet()
    tried = 0
    for rewrite in default_rewrites(proto, weight_bits=10):
        low, high = PASSES[rewrite.name].parameters
        assert low <= rewrite.parameter <= high
        for outside in (low - 1, high + 1):
            with pytest.raises(ChunkingError, match=f"expected {low} to {high}"):
                apply_rewrites(proto, [replace(rewrite, parameter=outside)])
            tried += 1
        proto = apply_rewrites(proto, [rewrite])
    assert tried >= 8

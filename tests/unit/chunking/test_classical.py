"""Operators of ai.onnx.ml in ONNX's own: onnxruntime is the judge.

Inputs and thresholds are multiples of 1/4, so that they are equal often.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from tests.unit.chunking.classical import (
    FLOAT,
    INT64,
    ML,
    MODES,
    TEXT,
    Case,
    Trees,
    grown,
    model,
    node,
    weighted,
)
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import parse_model
from zkml_ray.chunking.normal_form.classical.ensemble import MAX_DEPTH
from zkml_ray.chunking.normal_form.tails import tail_notices
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.errors import ChunkingError, ModelFormatError


def regressors() -> Iterator[Case]:
    for index, (mode, aggregate, targets) in enumerate(
        itertools.product((*MODES, None), ("SUM", "AVERAGE", "MIN", "MAX"), (1, 3))
    ):
        trees = grown(index, modes=MODES if mode is None else (mode,))
        more = weighted(trees, "target", range(targets), index)
        base = [0.5, -1.0, 0.25][:targets] if index % 3 else None
        made = node(
            "TreeEnsembleRegressor",
            n_targets=targets,
            aggregate_function=aggregate,
            base_values=base,
            **more,
        )
        yield f"regressor {mode} {aggregate} {targets}", model([made], {"y": FLOAT}), ["y"]
    for post in ("LOGISTIC", "SOFTMAX"):
        trees = grown(50)
        more = weighted(trees, "target", range(3))
        made = node("TreeEnsembleRegressor", n_targets=3, post_transform=post, **more)
        yield f"regressor {post}", model([made], {"y": FLOAT}), ["y"]
    stumps = grown(60, trees=9, depth=1)
    made = node("TreeEnsembleRegressor", n_targets=1, **weighted(stumps, "target", [0]))
    yield "stumps", model([made], {"y": FLOAT}), ["y"]
    constant = grown(61, trees=2, depth=0)
    made = node("TreeEnsembleRegressor", n_targets=1, **weighted(constant, "target", [0]))
    yield "constant trees", model([made], {"y": FLOAT}), ["y"]
    deep = grown(62, trees=1, depth=12, features=4)
    made = node("TreeEnsembleRegressor", n_targets=2, **weighted(deep, "target", [0, 1]))
    yield "a deep tree", model([made], {"y": FLOAT}), ["y"]
    sparse = weighted(grown(63), "target", [0, 1, 2])
    kept = [index for index in range(len(sparse["target_ids"])) if index % 2]
    some = {
        name: [values[index] for index in kept] if name.startswith("target") else values
        for name, values in sparse.items()
    }
    made = node("TreeEnsembleRegressor", n_targets=3, **some)
    yield "leaves of some targets", model([made], {"y": FLOAT}), ["y"]
    infinite = grown(64, modes=MODES[:4])
    infinite.nodes["nodes_values"] = [
        [float("inf"), float("-inf"), value][index % 3]
        for index, value in enumerate(infinite.nodes["nodes_values"])
    ]
    made = node("TreeEnsembleRegressor", n_targets=1, **weighted(infinite, "target", [0]))
    yield "infinite thresholds", model([made], {"y": FLOAT}), ["y"]


def classifiers() -> Iterator[Case]:
    outputs = {"label": INT64, "y": FLOAT}
    for post, base in itertools.product(("NONE", "LOGISTIC", "SOFTMAX"), (None, [0.5, 0.0, -1.0])):
        more = weighted(grown(70), "class", range(3))
        made = node(
            "TreeEnsembleClassifier",
            to=list(outputs),
            post_transform=post,
            classlabels_int64s=[0, 1, 2],
            base_values=base,
            **more,
        )
        yield f"three classes {post} {base}", model([made], outputs), ["y"]
    for post, base, positive in itertools.product(
        ("NONE", "LOGISTIC"), (None, [0.25]), (False, True)
    ):
        more = weighted(grown(71), "class", [0])
        if positive:
            more["class_weights"] = [abs(weight) / 4 for weight in more["class_weights"]]
        made = node(
            "TreeEnsembleClassifier",
            to=list(outputs),
            post_transform=post,
            classlabels_int64s=[0, 1],
            base_values=base,
            **more,
        )
        yield f"two classes {post} {base} {positive}", model([made], outputs), ["y"]
    for post in ("NONE", "LOGISTIC", "SOFTMAX"):
        made = node(
            "TreeEnsembleClassifier",
            to=list(outputs),
            post_transform=post,
            classlabels_int64s=[3, 5],
            **weighted(grown(72), "class", [0, 1]),
        )
        yield f"two classes, both named {post}", model([made], outputs), ["y"]


def pointed(seed: int, targets: int = 2, **more: Any) -> onnx.NodeProto:
    """A TreeEnsemble of version 5 with every mode, and a tree that is a leaf."""
    random = np.random.default_rng(seed)
    lists: dict[str, list[Any]] = {
        name: []
        for name in ("featureids", "splits", "modes", "trues", "trueleafs", "falses", "falseleafs")
    }
    weights: list[float] = []
    members: list[float] = []
    roots = []

    def leaf() -> tuple[int, int]:
        weights.append(float(random.integers(-8, 9)) / 8)
        return len(weights) - 1, 1

    def grow(level: int) -> tuple[int, int]:
        if level == 3 or (level and random.random() < 0.2):
            return leaf()
        at, mode = len(lists["modes"]), int(random.integers(7))
        lists["featureids"].append(int(random.integers(4)))
        lists["splits"].append(float(random.integers(-4, 5)) / 4)
        lists["modes"].append(mode)
        if mode == 6:
            members.extend([*random.integers(-2, 4, 3), np.nan])
        for name in ("trues", "trueleafs", "falses", "falseleafs"):
            lists[name].append(0)
        for side in ("true", "false"):
            to, is_leaf = grow(level + 1)
            lists[f"{side}s"][at], lists[f"{side}leafs"][at] = to, is_leaf
        return at, 0

    for _ in range(3):
        roots.append(grow(0)[0])
    only, _ = leaf()
    roots.append(len(lists["modes"]))
    for name, value in (
        ("featureids", 0), ("splits", 0.0), ("modes", 0),
        ("trues", only), ("trueleafs", 1), ("falses", only), ("falseleafs", 1),
    ):  # fmt: skip
        lists[name].append(value)

    def tensor(values: Sequence[float], kind: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=kind))

    return node(
        "TreeEnsemble",
        n_targets=targets,
        tree_roots=roots,
        nodes_featureids=lists["featureids"],
        nodes_splits=tensor(lists["splits"], np.float32),
        nodes_modes=tensor(lists["modes"], np.uint8),
        nodes_truenodeids=lists["trues"],
        nodes_trueleafs=lists["trueleafs"],
        nodes_falsenodeids=lists["falses"],
        nodes_falseleafs=lists["falseleafs"],
        leaf_targetids=[int(value) for value in random.integers(0, targets, len(weights))],
        leaf_weights=tensor(weights, np.float32),
        membership_values=tensor(members, np.float32) if members else None,
        **more,
    )


def new_ensembles() -> Iterator[Case]:
    for seed in range(12):
        made = pointed(
            seed,
            aggregate_function=seed % 2,
        )
        yield f"pointed {seed}", model([made], {"y": FLOAT}, version=5), ["y"]


def linear() -> Iterator[Case]:
    random = np.random.default_rng(5)
    outputs = {"label": INT64, "y": FLOAT}
    for targets, intercepts in itertools.product((1, 3), (True, False)):
        made = node(
            "LinearRegressor",
            targets=targets,
            coefficients=[float(v) for v in random.normal(size=4 * targets)],
            intercepts=[0.5, -1.0, 2.0][:targets] if intercepts else None,
        )
        yield f"linear {targets} {intercepts}", model([made], {"y": FLOAT}), ["y"]
    for classes, post in itertools.product((1, 2, 3), ("NONE", "LOGISTIC", "SOFTMAX")):
        if (classes, post) == (1, "SOFTMAX"):
            continue
        made = node(
            "LinearClassifier",
            to=list(outputs),
            coefficients=[float(v) for v in random.normal(size=4 * classes)],
            intercepts=[0.5, -1.0, 2.0][:classes],
            classlabels_ints=list(range(max(2, classes))),
            post_transform=post,
        )
        yield f"linear classes {classes} {post}", model([made], outputs), ["y"]
    made = node("LinearRegressor", coefficients=[1.0, 2.0, -1.0, 0.5], targets=1)
    yield "a vector", model([made], {"y": FLOAT}, [4]), ["y"]


def vectors() -> Iterator[Case]:
    random = np.random.default_rng(6)
    kernels = {"LINEAR": [0.0, 0.0, 0.0], "RBF": [0.25, 0.0, 0.0], "SIGMOID": [0.2, 0.1, 0.0]}
    outputs = {"label": INT64, "y": FLOAT}
    for kind, degree in [*((name, 0) for name in kernels), ("POLY", 2), ("POLY", 3)]:
        parameters = kernels.get(kind, [0.25, 0.5, float(degree)])
        for one_class in (0, 1):
            made = node(
                "SVMRegressor",
                kernel_type=kind,
                kernel_params=parameters,
                n_supports=5,
                support_vectors=[float(v) for v in random.integers(-4, 5, 20) / 4],
                coefficients=[float(v) for v in random.normal(size=5)],
                rho=[0.125],
                one_class=one_class,
            )
            yield f"regressor {kind} {degree} {one_class}", model([made], {"y": FLOAT}), ["y"]
        for sizes, prob, post in (
            ([2, 3], False, "NONE"),
            ([2, 3], False, "LOGISTIC"),
            ([3, 2], True, "NONE"),
            ([2, 1, 3], False, "NONE"),
            ([2, 1, 3, 1], False, "LOGISTIC"),
        ):
            classes, count = len(sizes), sum(sizes)
            made = node(
                "SVMClassifier",
                to=list(outputs),
                kernel_type=kind,
                kernel_params=parameters,
                vectors_per_class=sizes,
                support_vectors=[float(v) for v in random.integers(-4, 5, 4 * count) / 4],
                coefficients=[float(v) for v in random.normal(size=(classes - 1) * count)],
                rho=[float(v) for v in random.normal(size=classes * (classes - 1) // 2)],
                classlabels_ints=list(range(classes)),
                post_transform=post,
                prob_a=[-1.5] if prob else None,
                prob_b=[0.25] if prob else None,
            )
            name = f"classifier {kind} {degree} {sizes} {prob} {post}"
            yield name, model([made], outputs), ["y"]
    made = node(
        "SVMRegressor",
        kernel_type="LINEAR",
        kernel_params=[0.0, 0.0, 0.0],
        coefficients=[1.0, 0.5, -1.0, 2.0],
        rho=[0.25],
    )
    yield "linear vectors", model([made], {"y": FLOAT}), ["y"]


def features() -> Iterator[Case]:
    four = [0.5, -1.0, 2.0, 0.25]
    pairs = [([1.0], [0.0]), ([2.0], [0.5]), (four, four[::-1]), (four, [0.0] * 4)]
    for scale, offset in pairs:
        made = node("Scaler", scale=scale, offset=offset)
        yield f"scaler {scale} {offset}", model([made], {"y": FLOAT}), ["y"]
    for norm, shape in itertools.product(("MAX", "L1", "L2"), ([3, 4], [4])):
        made = node("Normalizer", norm=norm)
        yield f"normaliser {norm} {shape}", model([made], {"y": FLOAT}, shape), ["y"]
    for values, replaced in itertools.product(([2.5], four), (0.25, float("nan"))):
        made = node("Imputer", imputed_value_floats=values, replaced_value_float=replaced)
        yield f"imputer {values} {replaced}", model([made], {"y": FLOAT}), ["y"]
    made = node("Imputer", imputed_value_int64s=[7], replaced_value_int64=2)
    yield "whole imputer", model([made], {"y": INT64}, kind=INT64), ["y"]
    for threshold in (0.0, 0.25):
        made = node("Binarizer", threshold=threshold)
        yield f"binarizer {threshold}", model([made], {"y": FLOAT}), ["y"]
    made = node("FeatureVectorizer", "x", "x", inputdimensions=[4, 4])
    yield "vectorizer", model([made], {"y": FLOAT}), ["y"]
    for kind in (FLOAT, INT64):
        made = node("OneHotEncoder", cats_int64s=[0, 2, -1], zeros=1)
        yield f"one hot {kind}", model([made], {"y": FLOAT}, kind=kind), ["y"]
    made = node(
        "LabelEncoder", keys_floats=[0.25, -1.0], values_floats=[3.0, 4.0], default_float=9.0
    )
    yield "floats for floats", model([made], {"y": FLOAT}), ["y"]
    made = node("LabelEncoder", keys_int64s=[1, -2, 3], values_int64s=[7, 8, 9])
    yield "integers for integers", model([made], {"y": INT64}, kind=INT64), ["y"]
    for places, shape in (([2, 0], [3, 4]), ([3], [3, 4]), ([1, 1, 0], [4]), ([0, 2], [2, 3, 4])):
        made = node("ArrayFeatureExtractor", "x", "places")
        constant = numpy_helper.from_array(np.array(places, dtype=np.int64), "places")
        yield (
            f"columns {places} {shape}",
            model([made], {"y": FLOAT}, shape, constants=[constant]),
            ["y"],
        )


CASES = [*regressors(), *classifiers(), *new_ensembles(), *linear(), *vectors(), *features()]


def runs(proto: onnx.ModelProto, names: Sequence[str], x: npt.NDArray[Any]) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    kind = np.int64 if given.type == "tensor(int64)" else np.float32
    return dict(zip(names, session.run(list(names), {given.name: x.astype(kind)}), strict=True))


def inputs_of(proto: onnx.ModelProto, seed: int) -> npt.NDArray[Any]:
    tensor = proto.graph.input[0].type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    random = np.random.default_rng(seed)
    values = random.integers(-5, 6, shape)
    # onnxruntime finds 1.25 in some sets of members that 1 is in.
    whole = tensor.elem_type == INT64 or "membership_values" in str(proto)
    return values if whole else values / 4


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_classical_operator_computes_the_same(case: Case) -> None:
    _, proto, names = case
    parse_model(proto.SerializeToString(), "m.onnx")
    normal = normalise(proto, {})
    assert {each.op_type for each in normal.graph.node} <= SUPPORTED
    for seed in range(5):
        x = inputs_of(proto, seed)
        wanted, found = runs(proto, names, x), runs(normal, names, x)
        for name in names:
            assert wanted[name].shape == found[name].shape
            # Of two classes' probabilities, onnxruntime's iteration is not at its end.
            atol = 5e-3 if "prob_a" in str(proto) else 1e-3
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=atol)


TAILS = {
    "tree": (
        lambda: node(
            "TreeEnsembleClassifier",
            to=["label", "scores"],
            classlabels_int64s=[4, 5, 6],
            **weighted(grown(80), "class", range(3)),
        ),
        INT64,
    ),
    "tree with texts": (
        lambda: node(
            "TreeEnsembleClassifier",
            to=["label", "scores"],
            classlabels_strings=["a", "b", "c"],
            **weighted(grown(80), "class", range(3)),
        ),
        TEXT,
    ),
    "linear": (
        lambda: node(
            "LinearClassifier",
            to=["label", "scores"],
            coefficients=[0.5, 1.0, -1.0, 0.25] * 2,
            intercepts=[0.0, 0.5],
            classlabels_ints=[0, 1],
        ),
        INT64,
    ),
}


@pytest.mark.parametrize("name", TAILS)
def test_label_follows_from_scores_that_are_proved_in_its_place(name: str) -> None:
    make, kind = TAILS[name]
    cast = [helper.make_node("Identity", ["label"], ["l"], "cast")]
    proto = model([make(), *cast], {"l": kind})
    normal = normalise(proto, {})
    assert [output.name for output in normal.graph.output] == ["scores"]
    assert tail_notices(proto) == ("output l follows from scores, which is proved in its place",)


@pytest.mark.parametrize("name", ["tree", "linear"])
def test_label_that_is_computed_with_is_that_of_the_largest_score(name: str) -> None:
    make, _ = TAILS[name]
    number = [
        helper.make_node("Cast", ["label"], ["n"], "cast", to=FLOAT),
        helper.make_node("Mul", ["n", "n"], ["y"], "square"),
    ]
    proto = model([make(), *number], {"y": FLOAT})
    normal = normalise(proto, {})
    for seed in range(5):
        x = inputs_of(proto, seed)
        np.testing.assert_array_equal(runs(normal, ["y"], x)["y"], runs(proto, ["y"], x)["y"])


def test_zip_map_is_cut_off_whatever_it_reads() -> None:
    make, _ = TAILS["tree"]
    nodes = [
        make(),
        node("Normalizer", "scores", to=["p"], norm="L1"),
        helper.make_node("Mul", ["p", "p"], ["q"], "squares"),
        node("ZipMap", "q", to=["z"], classlabels_int64s=[4, 5, 6]),
    ]
    proto = model(nodes, {"label": INT64, "z": FLOAT})
    assert [output.name for output in normalise(proto, {}).graph.output] == ["scores", "q"]


@pytest.mark.parametrize(
    ("versions", "opset"), [([("", 18), ("", 18)], 18), ([], None), ([("", 9)], 18)]
)
def test_versions_as_converters_name_them(
    versions: Sequence[tuple[str, int]], opset: int | None
) -> None:
    proto = model([TAILS["tree"][0]()], {"scores": FLOAT})
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid(*each) for each in [*versions, (ML, 1)])
    found = normalise(proto, {})
    assert [e.version for e in found.opset_import if not e.domain] == [opset or 18]


def edited(**changes: Any) -> onnx.NodeProto:
    trees = weighted(grown(90), "target", [0]) | {"n_targets": 1}
    return node("TreeEnsembleRegressor", **(trees | changes))


def chain(length: int) -> Trees:
    """A tree that is a list."""
    made = Trees()
    count = 2 * length + 1
    inner = [index % 2 == 0 and index < 2 * length for index in range(count)]
    made.nodes = {
        "nodes_treeids": [0] * count,
        "nodes_nodeids": list(range(count)),
        "nodes_featureids": [0] * count,
        "nodes_values": [float(index) for index in range(count)],
        "nodes_modes": ["BRANCH_LEQ" if each else "LEAF" for each in inner],
        "nodes_truenodeids": [i + 1 if each else 0 for i, each in enumerate(inner)],
        "nodes_falsenodeids": [i + 2 if each else 0 for i, each in enumerate(inner)],
    }
    made.leaves = [(0, index) for index, each in enumerate(inner) if not each]
    return made


REFUSED = {
    "weights of both classes and a base": (
        lambda: node(
            "TreeEnsembleClassifier",
            to=["label", "y"],
            classlabels_int64s=[0, 1],
            base_values=[0.5, 0.5],
            **weighted(grown(91), "class", [0, 1]),
        ),
        "base_values",
    ),
    "probit": (
        lambda: node(
            "TreeEnsembleRegressor",
            n_targets=2,
            post_transform="PROBIT",
            **weighted(grown(92), "target", [0, 1]),
        ),
        "post_transform PROBIT cannot be proved",
    ),
    "logistic of one": (lambda: edited(post_transform="LOGISTIC"), "of a single target"),
    "a mode": (lambda: edited(nodes_modes=["BRANCH_X"] * 99), "different lengths"),
    "a target": (lambda: edited(n_targets=0), "names a target that is none of its 0"),
    "too deep": (
        lambda: node(
            "TreeEnsembleRegressor",
            n_targets=1,
            **weighted(chain(MAX_DEPTH + 1), "target", [0]),
        ),
        f"more than {MAX_DEPTH} comparisons deep",
    ),
    "a column too many": (
        lambda: edited(**weighted(grown(93, features=9), "target", [0])),
        "it reads column",
    ),
    "a circle": (
        lambda: node(
            "TreeEnsembleRegressor",
            n_targets=1,
            nodes_treeids=[0, 0],
            nodes_nodeids=[0, 1],
            nodes_featureids=[0, 0],
            nodes_values=[0.0, 0.0],
            nodes_modes=["BRANCH_LEQ", "LEAF"],
            nodes_truenodeids=[0, 0],
            nodes_falsenodeids=[1, 0],
            target_treeids=[0],
            target_nodeids=[1],
            target_ids=[0],
            target_weights=[1.0],
        ),
        "two nodes point to node 0",
    ),
    "texts": (
        lambda: node("LabelEncoder", keys_floats=[1.0], values_strings=["a"]),
        "its values are text",
    ),
    "probabilities of three": (
        lambda: node(
            "SVMClassifier",
            to=["label", "y"],
            kernel_type="LINEAR",
            kernel_params=[0.0, 0.0, 0.0],
            vectors_per_class=[1, 1, 1],
            support_vectors=[0.0] * 12,
            coefficients=[1.0] * 6,
            rho=[0.0] * 3,
            classlabels_ints=[0, 1, 2],
            prob_a=[1.0] * 3,
            prob_b=[0.0] * 3,
        ),
        "probability=False",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_defined_or_too_large_is_refused_by_name(name: str) -> None:
    make, why = REFUSED[name]
    used = "y" if name == "texts" else None
    nodes = [make()]
    if used:
        nodes.append(helper.make_node("Identity", ["y"], ["z"], "end"))
    with pytest.raises(ChunkingError, match=rf"the_\w+ \(\w+\): .*{why}"):
        normalise(model(nodes, {"y": FLOAT}), {})


def test_nan_and_infinity_are_refused_where_they_are_numbers() -> None:
    proto = model([edited(target_weights=[float("nan")] * 99)], {"y": FLOAT})
    with pytest.raises(ModelFormatError, match="target_weights"):
        parse_model(proto.SerializeToString(), "m.onnx")
    proto = model([edited(target_weights=[float("inf")] * 99)], {"y": FLOAT})
    with pytest.raises(ModelFormatError, match="target_weights"):
        parse_model(proto.SerializeToString(), "m.onnx")


def test_a_forest_takes_cells_in_proportion_to_its_nodes() -> None:
    """Every comparison once, every leaf but one a tree: not a product of the two."""
    sizes = []
    for trees in (10, 100):
        forest = grown(95, trees=trees, depth=5, features=4, modes=("BRANCH_LEQ",))
        random = np.random.default_rng(1)
        forest.nodes["nodes_values"] = list(random.normal(size=len(forest.nodes["nodes_values"])))
        made = node("TreeEnsembleRegressor", n_targets=1, **weighted(forest, "target", [0]))
        graph = ModelGraph(normalise(model([made], {"y": FLOAT}, (1, 4)), {}))
        elements = sum(
            int(np.prod(graph.tensor(each.output[0]).shape))
            for each in graph.nodes.values()
            if each.op_type in ("Sign", "Gather", "MatMul")
        )
        sizes.append((elements, len(forest.leaves)))
    (few, few_leaves), (many, many_leaves) = sizes
    assert many / few < 1.3 * many_leaves / few_leaves
    assert many < 12 * many_leaves

"""Models of ai.onnx.ml for tests: nodes of it, and random trees as its attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT, INT64, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
ML = "ai.onnx.ml"
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
Case = tuple[str, onnx.ModelProto, Sequence[str]]


def model(
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, int],
    shape: Sequence[int] = (3, 4),
    *,
    constants: Sequence[onnx.TensorProto] = (),
    kind: int = FLOAT,
    version: int = 3,
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "classical",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, to, None) for name, to in outputs.items()],
        list(constants),
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(ML, version)],
        ir_version=9,
    )
    # The checker asks for the rank of an output.
    for output in made.graph.output:
        output.type.tensor_type.shape.SetInParent()
    return made


def node(op_type: str, *names: str, to: Sequence[str] = ("y",), **more: Any) -> onnx.NodeProto:
    kept = {name: value for name, value in more.items() if value is not None}
    made = helper.make_node(op_type, names or ("x",), list(to), f"the_{op_type}", domain=ML)
    made.attribute.extend(
        helper.make_attribute(name, value) for name, value in sorted(kept.items())
    )
    return made


@dataclass(slots=True)
class Trees:
    """Random trees as the attributes of an ensemble."""

    nodes: dict[str, list[Any]] = field(default_factory=dict)
    leaves: list[tuple[int, int]] = field(default_factory=list)


def grown(
    seed: int, *, trees: int = 3, depth: int = 4, features: int = 4, modes: Sequence[str] = MODES
) -> Trees:
    random = np.random.default_rng(seed)
    keys = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    made = Trees(nodes={f"nodes_{key}": [] for key in keys})
    for tree in range(trees):
        count = 0

        def grow(level: int, tree: int = tree) -> int:
            nonlocal count
            number, count = count, count + 1
            at = len(made.nodes["nodes_nodeids"])
            leaf = level == depth or (level > 0 and random.random() < 0.25)
            mode = "LEAF" if leaf else str(random.choice(list(modes)))
            value = 0.0 if leaf else float(random.integers(-4, 5)) / 4
            feature = 0 if leaf else int(random.integers(features))
            for key, entry in zip(keys, (tree, number, feature, value, mode, 0, 0), strict=True):
                made.nodes[f"nodes_{key}"].append(entry)
            if leaf:
                made.leaves.append((tree, number))
            else:
                made.nodes["nodes_truenodeids"][at] = grow(level + 1)
                made.nodes["nodes_falsenodeids"][at] = grow(level + 1)
            return number

        grow(0)
    return made


def weighted(trees: Trees, prefix: str, targets: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """Weights of every target on every leaf."""
    random = np.random.default_rng([seed, 7])
    rows = [(tree, number, target) for tree, number in trees.leaves for target in targets]
    weights = random.integers(-8, 9, len(rows)) / 8
    return {
        **trees.nodes,
        f"{prefix}_treeids": [row[0] for row in rows],
        f"{prefix}_nodeids": [row[1] for row in rows],
        f"{prefix}_ids": [row[2] for row in rows],
        f"{prefix}_weights": [float(weight) for weight in weights],
    }

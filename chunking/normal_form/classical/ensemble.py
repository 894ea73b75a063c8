"""Trees as two generations of operators hold them: what decides, and where paths end.

TreeEnsembleClassifier and TreeEnsembleRegressor name nodes by tree and number and give leaves their
weights in a list beside them; TreeEnsemble (version 5 of ai.onnx.ml) points from node to node. A
tree is read into its leaves: which comparisons hold on the path to each, and what it adds to which
target. Of several bounds on one feature only the tightest is kept, and a leaf that no number can
reach is dropped: both are the same on real and on fixed-point numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from zkml_ray.chunking.normal_form.writer import Writer

MAX_NODES: Final = 1 << 18
"""Nodes of one ensemble; 2^18 comparisons take some ten million cells."""

MAX_DEPTH: Final = 1 << 10

_MODES: Final = (
    *("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"),
    "BRANCH_MEMBER",
)
"""In the order of TreeEnsemble's numbers."""


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison of a feature: above (x > value), below (x < value), or in a set.

    Attributes:
        feature: Its column.
        kind: "above", "below" or "in".
        values: One value, or the set's, ascending.
    """

    feature: int
    kind: str
    values: tuple[float, ...]


Path = frozenset[tuple[Test, bool]]
"""Tests, and whether each must hold."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where a path ends.

    Attributes:
        path: What leads here.
        weights: Per target, what is added; targets that are not named get nothing.
    """

    path: Path
    weights: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Trees, as their leaves.

    Attributes:
        trees: Per tree, its leaves, of which exactly one is reached.
        features: One more than the largest column that is read.
    """

    trees: tuple[tuple[Leaf, ...], ...]
    features: int


@dataclass(slots=True)
class _Node:
    test: Test | None = None
    holds: bool = True
    true: tuple[int, int] | None = None
    false: tuple[int, int] | None = None
    weights: dict[int, float] = field(default_factory=dict)


def named_ensemble(write: Writer, prefix: str) -> Ensemble:
    """The trees of a TreeEnsembleClassifier or TreeEnsembleRegressor.

    Args:
        write: At the node.
        prefix: How the attributes of weights begin, `class` or `target`.

    Raises:
        ChunkingError: They are no trees, or too many.
    """
    trees, numbers = (_ints(write, f"nodes_{name}") for name in ("treeids", "nodeids"))
    modes = [_text(mode) for mode in write.attribute("nodes_modes", ())]
    features = _ints(write, "nodes_featureids")
    ways = [_ints(write, f"nodes_{name}nodeids") for name in ("true", "false")]
    values = _floats(write, "nodes_values")
    if not len(trees) == len(numbers) == len(modes) == len(features) == len(values):
        raise write.refusal("its lists of nodes have different lengths")
    _check_count(write, len(trees))
    nodes: dict[tuple[int, int], _Node] = {}
    for index, (tree, number) in enumerate(zip(trees, numbers, strict=True)):
        node = _Node()
        if modes[index] != "LEAF":
            node.test, node.holds = _test(write, features[index], modes[index], (values[index],))
            node.true, node.false = (tree, ways[0][index]), (tree, ways[1][index])
        if (tree, number) in nodes:
            raise write.refusal(f"tree {tree} has node {number} twice")
        nodes[tree, number] = node
    lists = [_ints(write, f"{prefix}_{name}") for name in ("treeids", "nodeids", "ids")]
    for tree, number, target, weight in zip(
        *lists, _floats(write, f"{prefix}_weights"), strict=True
    ):
        if (tree, number) not in nodes:
            raise write.refusal(f"tree {tree} has no node {number}, which has a weight")
        leaf = nodes[tree, number].weights
        leaf[target] = leaf.get(target, 0.0) + weight
    roots = {tree: (tree, number) for tree, number in reversed(list(nodes))}
    return _ensemble(write, nodes, [roots[tree] for tree in dict.fromkeys(trees)])


def pointed_ensemble(write: Writer) -> Ensemble:
    """The trees of a TreeEnsemble.

    Raises:
        ChunkingError: They are no trees, or too many.
    """
    features = _ints(write, "nodes_featureids")
    modes = [_MODES[int(mode)] for mode in _tensor(write, "nodes_modes")]
    splits = _tensor(write, "nodes_splits")
    members = _sets(_tensor(write, "membership_values"))
    _check_count(write, len(features))
    nodes: dict[tuple[int, int], _Node] = {}
    sides = [
        (_ints(write, f"nodes_{way}nodeids"), _ints(write, f"nodes_{way}leafs"))
        for way in ("true", "false")
    ]
    for index, feature in enumerate(features):
        values: tuple[float, ...] = (float(splits[index]),)
        if modes[index] == "BRANCH_MEMBER":
            if not members:
                raise write.refusal("it has fewer sets of members than nodes that ask for one")
            values = members.pop(0)
        node = _Node()
        node.test, node.holds = _test(write, feature, modes[index], values)
        node.true, node.false = ((int(leaf[index]), to[index]) for to, leaf in sides)
        nodes[0, index] = node
    targets, weights = _ints(write, "leaf_targetids"), _tensor(write, "leaf_weights")
    for index, (target, weight) in enumerate(zip(targets, weights, strict=True)):
        nodes[1, index] = _Node(weights={target: float(weight)})
    return _ensemble(write, nodes, [(0, root) for root in _ints(write, "tree_roots")])


def _ensemble(
    write: Writer, nodes: Mapping[tuple[int, int], _Node], roots: Sequence[tuple[int, int]]
) -> Ensemble:
    seen = set(roots)
    if len(seen) != len(roots):
        raise write.refusal("two of its trees have one root")
    for node in nodes.values():
        for child in {way for way in (node.true, node.false) if way is not None}:
            if child not in nodes:
                raise write.refusal(f"a node points to node {child[1]}, which there is not")
            if child in seen and nodes[child].test is not None:
                raise write.refusal(f"two nodes point to node {child[1]}: they form no tree")
            seen.add(child)
    trees = tuple(tuple(_leaves(write, nodes, root)) for root in roots)
    features = [t.feature for tree in trees for leaf in tree for t, _ in leaf.path]
    return Ensemble(trees=trees, features=max(features, default=-1) + 1)


def _leaves(
    write: Writer, nodes: Mapping[tuple[int, int], _Node], root: tuple[int, int]
) -> list[Leaf]:
    found: list[Leaf] = []
    stack: list[tuple[tuple[int, int], tuple[tuple[Test, bool], ...]]] = [(root, ())]
    while stack:
        name, path = stack.pop()
        node = nodes[name]
        if node.test is None or node.true is None or node.false is None:
            kept = _tightened(path)
            if kept is not None:
                found.append(Leaf(kept, node.weights))
            continue
        if len(path) >= MAX_DEPTH:
            raise write.refusal(f"a tree is more than {MAX_DEPTH} comparisons deep")
        ways = {node.holds: node.true, not node.holds: node.false}
        bound = node.test.values[0]
        if math.isinf(bound):  # no number is beyond it
            ways = {holds: ways[holds] for holds in [(node.test.kind == "above") == (bound < 0)]}
            stack += [(child, path) for child in ways.values()]
            continue
        stack += [(child, (*path, (node.test, holds))) for holds, child in ways.items()]
    return found


def _tightened(path: Sequence[tuple[Test, bool]]) -> Path | None:
    """A path without what follows from the rest of it; None where no number takes it."""
    # (value, whether the value itself is outside) -> the test that says so
    low: dict[int, tuple[float, bool, tuple[Test, bool]]] = {}
    high: dict[int, tuple[float, bool, tuple[Test, bool]]] = {}
    rest: dict[Test, bool] = {}
    for literal in path:
        test, holds = literal
        if test.kind == "in":
            if rest.setdefault(test, holds) != holds:
                return None
            continue
        value, feature = test.values[0], test.feature
        if (test.kind == "above") == holds:  # x > value, or not x < value
            bound = (value, holds, literal)
            if feature not in low or bound[:2] > low[feature][:2]:
                low[feature] = bound
        else:  # x < value, or not x > value
            bound = (value, holds, literal)
            if feature not in high or (-value, holds) > (-high[feature][0], high[feature][1]):
                high[feature] = bound
    for feature in low.keys() & high.keys():
        (bottom, above, _), (top, below, _) = low[feature], high[feature]
        if bottom > top or (bottom == top and (above or below)):
            return None
    ends = [end[2] for side in (low, high) for end in side.values()]
    return frozenset([*ends, *rest.items()])


def _test(write: Writer, feature: int, mode: str, values: tuple[float, ...]) -> tuple[Test, bool]:
    """The comparison of a node's mode, and what it gives where the node is true."""
    single = mode in ("BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT", "BRANCH_GTE")
    if feature < 0 or any(math.isnan(v) or (math.isinf(v) and not single) for v in values):
        raise write.refusal(f"a node compares column {feature} with {values}")
    if mode == "BRANCH_LEQ":
        return Test(feature, "above", values), False
    if mode == "BRANCH_GT":
        return Test(feature, "above", values), True
    if mode == "BRANCH_LT":
        return Test(feature, "below", values), True
    if mode == "BRANCH_GTE":
        return Test(feature, "below", values), False
    if mode in ("BRANCH_EQ", "BRANCH_MEMBER"):
        return Test(feature, "in", tuple(sorted(set(values)))), True
    if mode == "BRANCH_NEQ":
        return Test(feature, "in", values), False
    raise write.refusal(f"there is no mode {mode}")


def _check_count(write: Writer, count: int) -> None:
    if not 0 < count <= MAX_NODES:
        raise write.refusal(f"it has {count} nodes; 1 to {MAX_NODES} can be proved")


def _sets(members: Sequence[float]) -> list[tuple[float, ...]]:
    """Sets that NaN parts, in order."""
    found: list[tuple[float, ...]] = []
    current: list[float] = []
    for value in members:
        if math.isnan(value):
            found.append(tuple(current))
            current = []
        else:
            current.append(float(value))
    return [*found, tuple(current)] if current else found


def _ints(write: Writer, name: str) -> list[int]:
    return [int(value) for value in write.attribute(name, ())]


def _floats(write: Writer, name: str) -> list[float]:
    """A list of numbers, or the tensor that may stand in its place."""
    plain = write.attribute(name, ())
    return [float(v) for v in (plain if len(plain) else _tensor(write, f"{name}_as_tensor"))]


def _tensor(write: Writer, name: str) -> list[float]:
    tensor = write.attribute(name, None)
    return [] if tensor is None else [float(v) for v in np.asarray(tensor.numpy()).reshape(-1)]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

"""Tree ensembles, whole: every comparison once, every leaf a sum, one product with the weights.

With b the 0 or 1 of each comparison, a leaf is reached where none of the comparisons on its path
fails. So z, the number of those that fail, is a sum of some b and some 1 - b, and the leaf counts
where z = 0: 1 - Sign(z). The result is a product of these with the leaves' weights. Exactly one
leaf of a tree is reached, so one of them, the farthest, is 1 less the others and need not be looked
at; of a tree with two leaves the other one is a comparison itself.

That is one Sign a comparison, one a leaf, and additions as long as the paths: linear in the number
of nodes. Products along the paths would take three times as many cells, an own decision at every
node of a value tree as many a class. A large ensemble is written in parts that are added up, so
that it can be cut into chunks.

What a comparison means on quantised numbers: docs/adr/0032.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zkml_ray.chunking.normal_form.classical.ensemble import (
    Ensemble,
    Leaf,
    Test,
    named_ensemble,
    pointed_ensemble,
)
from zkml_ray.chunking.normal_form.classical.scores import (
    label,
    labels_of,
    pair,
    regressed,
    rows,
    text,
    transformed,
)
from zkml_ray.chunking.normal_form.definitions import decisions
from zkml_ray.chunking.normal_form.writer import Writer

PART_LEAVES: Final = 2048
"""Leaves that are decided together: about a hundred thousand cells."""

_AGGREGATES: Final = ("AVERAGE", "SUM", "MIN", "MAX")

Reals = npt.NDArray[np.float64]
Trees = Sequence[Sequence[Leaf]]


def regressor(write: Writer) -> ir.Value:
    """The sum, mean, least or largest of what the reached leaves give."""
    targets = int(write.attribute("n_targets", 1))
    how = text(write, "aggregate_function", "SUM")
    made = _aggregated(write, named_ensemble(write, "target"), targets, how, _base(write, targets))
    return regressed(write, made, targets, text(write, "post_transform", "NONE"))


def ensemble(write: Writer) -> ir.Value:
    """The sum, mean, least or largest of what the reached leaves give, version 5."""
    targets = int(write.attribute("n_targets", 1))
    how = _AGGREGATES[int(write.attribute("aggregate_function", 1))]
    if int(write.attribute("post_transform", 0)):
        raise write.refusal(
            "post_transform is a number that onnxruntime reads otherwise than ONNX says; write it "
            "as an operator of its own"
        )
    return _aggregated(write, pointed_ensemble(write), targets, how, np.zeros(targets))


def classifier(write: Writer) -> list[ir.Value | None]:
    """The sum of what the reached leaves give to each class."""
    labels = labels_of(write, "classlabels_strings", "classlabels_int64s")
    trees, post = named_ensemble(write, "class"), text(write, "post_transform", "NONE")
    classes = len(labels)
    if classes == 2:
        made = _of_two(write, trees, post)
    elif classes > 2:
        base = np.zeros(classes)
        given_base = _numbers(write, "base_values")[:classes]
        base[: len(given_base)] = given_base
        made = transformed(write, _aggregated(write, trees, classes, "SUM", base), post)
    else:
        raise write.refusal("it has one class: there is nothing to decide")
    return [label(write, made, labels), made]


def _of_two(write: Writer, trees: Ensemble, post: str) -> ir.Value:
    """The scores of two classes, of which weights may name one or both."""
    weights = [w for tree in trees.trees for leaf in tree for w in leaf.weights.items()]
    named = {target for target, _ in weights}
    base = _numbers(write, "base_values")
    if named == {0, 1}:
        # It is a score of its own only where some tree names it on every leaf.
        if not any(all(1 in leaf.weights for leaf in tree) for tree in trees.trees):
            raise write.refusal(
                "whether its second class has a score depends on the leaf: give every leaf both"
            )
        if len(base) == 2 or (len(base) == 1 and base[0] != 0):
            raise write.refusal("base_values beside weights of both classes are not defined")
        return transformed(write, _aggregated(write, trees, 2, "SUM", np.zeros(2)), post)
    if named != {0}:
        raise write.refusal(f"its weights name classes {sorted(named)}; 0, or 0 and 1 are expected")
    if len(base) > 1:
        raise write.refusal("several base_values beside weights of one class are not defined")
    score = _aggregated(write, trees, 1, "SUM", np.array(base[:1] or [0.0]))
    if post in ("SOFTMAX_ZERO", "PROBIT"):
        raise write.refusal(f"post_transform {post} cannot be proved")
    if post == "LOGISTIC":
        return pair(write, score, "logistic")
    positive = all(weight >= 0 for _, weight in weights)
    return pair(write, score, "complement" if positive else "opposite")


def _base(write: Writer, targets: int) -> Reals:
    base = _numbers(write, "base_values")
    if base and len(base) != targets:
        raise write.refusal(f"it has {len(base)} base_values for {targets} targets")
    return np.array(base or [0.0] * targets)


def _numbers(write: Writer, name: str) -> list[float]:
    tensor = write.attribute(f"{name}_as_tensor", None)
    plain = write.attribute(name, ()) if tensor is None else tensor.numpy().reshape(-1)
    return [float(value) for value in plain]


def _aggregated(write: Writer, ensemble: Ensemble, targets: int, how: str, base: Reals) -> ir.Value:
    """The trees' sum, mean, least or largest, with base values; shape [rows, targets]."""
    data, (count, width) = rows(write)
    if ensemble.features > width:
        raise write.refusal(f"it reads column {ensemble.features - 1} of {width}")
    trees = ensemble.trees
    if any(not 0 <= t < targets for tree in trees for leaf in tree for t in leaf.weights):
        raise write.refusal(f"a leaf names a target that is none of its {targets}")
    if how in ("MIN", "MAX"):
        return _extreme(write, data, count, trees, targets, how, base)
    if how not in ("SUM", "AVERAGE"):
        raise write.refusal(f"there is no aggregate_function {how}")
    share = 1.0 / len(trees) if how == "AVERAGE" else 1.0
    total: ir.Value | None = None
    constant = base.astype(np.float64)
    for part in _parts(trees):
        plan = _Decided(part, targets)
        constant = constant + share * plan.constant.sum(axis=0)
        if not plan.leaves:
            continue
        reached = _reached(write, data, count, plan)
        made = write.op("MatMul", reached, write.floats(share * plan.weights))
        total = made if total is None else write.op("Add", total, made)
    if total is None:
        zero = write.op("MatMul", data, write.floats(np.zeros((width, targets))))
        return write.op("Add", zero, write.floats(constant))
    return write.op("Add", total, write.floats(constant)) if constant.any() else total


def _extreme(
    write: Writer, data: ir.Value, count: int, trees: Trees, targets: int, how: str, base: Reals
) -> ir.Value:
    """The least or largest of what trees give."""
    if any(set(leaf.weights) != set(range(targets)) for tree in trees for leaf in tree):
        raise write.refusal(f"aggregate_function {how} needs a weight of every target on each leaf")
    sides = []
    for tree in trees:
        plan = _Decided([tree], targets)
        if plan.leaves:
            made = write.op(
                "MatMul", _reached(write, data, count, plan), write.floats(plan.weights)
            )
            sides.append(write.op("Add", made, write.floats(plan.constant.sum(axis=0))))
        else:
            sides.append(write.floats(np.tile(plan.constant.sum(axis=0), (count, 1))))
    found = sides[0]
    for side in sides[1:]:
        found = write.op("Max" if how == "MAX" else "Min", found, side)
    return write.op("Add", found, write.floats(base)) if base.any() else found


class _Decided:
    """Leaves that must be decided, of trees whose last leaf follows from the others.

    Attributes:
        leaves: Paths, the longest last.
        weights: Per leaf and target, its weight less that of the leaf that is left out.
        constant: Per tree and target, the weight of that leaf.
    """

    def __init__(self, trees: Trees, targets: int) -> None:
        found: list[tuple[Leaf, Reals]] = []
        self.constant = np.zeros((len(trees), targets))
        for index, tree in enumerate(trees):
            *kept, last = sorted(tree, key=lambda leaf: len(leaf.path))
            self.constant[index] = _row(last, targets)
            found += [(leaf, _row(leaf, targets) - self.constant[index]) for leaf in kept]
        found = [(leaf, row) for leaf, row in found if row.any()]
        found.sort(key=lambda pair: len(pair[0].path))
        self.leaves = [leaf for leaf, _ in found]
        self.weights = np.array([row for _, row in found]).reshape(len(found), targets)


def _row(leaf: Leaf, targets: int) -> Reals:
    return np.array([leaf.weights.get(target, 0.0) for target in range(targets)])


def _parts(trees: Trees) -> list[list[Sequence[Leaf]]]:
    parts: list[list[Sequence[Leaf]]] = [[]]
    count = 0
    for tree in trees:
        if parts[-1] and count + len(tree) > PART_LEAVES:
            parts.append([])
            count = 0
        parts[-1].append(tree)
        count += len(tree)
    return parts


def _reached(write: Writer, data: ir.Value, count: int, plan: _Decided) -> ir.Value:
    """1 where a leaf is reached, else 0; shape [rows, leaves]."""
    tests = sorted(
        {test for leaf in plan.leaves for test, _ in leaf.path},
        key=lambda test: (test.kind, test.feature, test.values),
    )
    held = _tested(write, data, tests)
    failed = write.op("Sub", write.floats(1.0), held)
    place = {test: index for index, test in enumerate(tests)}
    # What counts against a leaf: a test that must fail holds, or one that must hold fails.
    against = [
        [place[test] + (len(tests) if holds else 0) for test, holds in leaf.path]
        for leaf in plan.leaves
    ]
    source = write.op("Concat", held, failed, axis=1)
    single = sum(len(each) == 1 for each in against)
    sides = []
    if single:
        # Its one test decides it: counted the other way round.
        turned = [(each[0] + len(tests)) % (2 * len(tests)) for each in against[:single]]
        sides.append(write.op("Gather", source, write.integers(turned), axis=1))
    if len(against) > single:
        longer = [sorted(each) for each in against[single:]]
        depth = max(map(len, longer))
        nothing = 2 * len(tests)
        if any(len(each) < depth for each in longer):
            zero = write.floats(np.zeros((count, 1)))
            source = write.op("Concat", source, zero, axis=1)
        places = [each + [nothing] * (depth - len(each)) for each in longer]
        taken = write.op("Gather", source, write.integers(places), axis=1)
        wrong = write.op("ReduceSum", taken, write.integers([2]), keepdims=0)
        sides.append(write.op("Sub", write.floats(1.0), write.op("Sign", wrong)))
    return sides[0] if len(sides) == 1 else write.op("Concat", *sides, axis=1)


def _tested(write: Writer, data: ir.Value, tests: Sequence[Test]) -> ir.Value:
    """1 where a test holds, else 0; shape [rows, tests], in order of kinds."""
    sides = []
    for kind in ("above", "below", "in"):
        own = [test for test in tests if test.kind == kind]
        if not own:
            continue
        if kind == "in":
            sides.append(_members(write, data, own))
            continue
        columns = write.op("Gather", data, write.integers([t.feature for t in own]), axis=1)
        bounds = write.floats([[test.values[0] for test in own]])
        order = (columns, bounds) if kind == "above" else (bounds, columns)
        sides.append(decisions.is_above(write, *order))
    return sides[0] if len(sides) == 1 else write.op("Concat", *sides, axis=1)


def _members(write: Writer, data: ir.Value, tests: Sequence[Test]) -> ir.Value:
    """1 where a feature is in a set: the sum of its being each of the members."""
    pairs = [(test.feature, value) for test in tests for value in test.values]
    columns = write.op("Gather", data, write.integers([f for f, _ in pairs]), axis=1)
    other = decisions.is_other(write, columns, write.floats([[value for _, value in pairs]]))
    same = decisions.negated(write, other)
    if len(pairs) == len(tests):
        return same
    member = np.zeros((len(pairs), len(tests)))
    start = 0
    for index, test in enumerate(tests):
        member[start : start + len(test.values), index] = 1
        start += len(test.values)
    return write.op("MatMul", same, write.floats(member))

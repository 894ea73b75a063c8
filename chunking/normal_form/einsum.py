"""Einsum of two tensors that share one summed letter.

ezkl 23.0.5 (src/circuit/ops/layouts.rs) adds up too much where a summed letter is in three
operands: all of it once for each of that letter's values. And of two operands that share several
summed letters it multiplies the elements in the order in which each holds them, so "ij,ji->" is
the sum over x_ij y_ij. tract takes a Transpose in front into the equation, so writing the letters
in one order is no remedy. So

- of three operands and more, two at a time are multiplied, from the left;
- several letters that two operands share and sum over become one, by Transpose and Reshape, which
  tract does not take in;
- an equation without an arrow gets the output that it implies.

Exact up to float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.graph import Place, data_of, described, sizes
from zkml_ray.errors import ChunkingError

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class PairwiseEinsum(InPlacePass):
    """Pre: shapes known. Post: see the module."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every Einsum that ezkl would compute otherwise."""
        modified = False
        for node in [node for node in model.graph if node.op_type == "Einsum"]:
            modified |= _rewrite(model, node)
        return PassResult(model, modified=modified)


def _rewrite(model: ir.Model, node: ir.Node) -> bool:
    terms, output = _parsed(node)
    values = [data_of(node, index) for index in range(len(terms))]
    known: dict[str, int] = {}
    for term, value in zip(terms, values, strict=True):
        shape = sizes(value, node)
        if len(shape) != len(term):
            raise ChunkingError(
                f"{described(node)}: {value.name} has {len(shape)} axes, its term {term!r} has "
                f"{len(term)}"
            )
        known |= dict(zip(term, shape, strict=True))
    if len(terms) == 1 or (len(terms) == 2 and len(_summed(terms[0], terms[1], output, known)) < 2):
        node.attributes["equation"] = ir.AttrString("equation", f"{','.join(terms)}->{output}")
        return False
    place = Place(model, node)
    term, value = terms[0], values[0]
    for index in range(1, len(terms)):
        needed = set("".join(terms[index + 1 :])) | set(output)
        last = index == len(terms) - 1
        both = dict.fromkeys(term + terms[index])
        result = output if last else "".join(c for c in both if c in needed)
        value = _product(place, (term, terms[index]), (value, values[index]), result, known)
        term = result
    place.finish(value)
    return True


def _product(
    place: Place,
    terms: tuple[str, str],
    values: tuple[ir.Value, ir.Value],
    result: str,
    known: Mapping[str, int],
) -> ir.Value:
    """The product of two tensors, their common sums over one axis."""
    left, right = terms
    summed = _summed(left, right, result, known)
    if len(summed) > 1:
        merged = next(c for c in _LETTERS if c not in left + right + result)
        length = math.prod(known[c] for c in summed)
        sides = [
            _merged(place, value, term, summed, known)
            for term, value in zip(terms, values, strict=True)
        ]
        left, right = (f"{kept}{merged}" for kept, _ in sides)
        values = sides[0][1], sides[1][1]
        known = {**known, merged: length}
    made = [known[c] for c in result]
    return place.node("Einsum", values, made, equation=f"{left},{right}->{result}")


def _merged(
    place: Place, value: ir.Value, term: str, summed: Sequence[str], known: Mapping[str, int]
) -> tuple[str, ir.Value]:
    """A tensor whose summed letters are one last axis, and the letters before it."""
    kept = "".join(c for c in term if c not in summed)
    order = [term.index(c) for c in (*kept, *summed)]
    if order != list(range(len(term))):
        turned = [known[term[axis]] for axis in order]
        value = place.node("Transpose", [value], turned, perm=order)
    shape = [*(known[c] for c in kept), math.prod(known[c] for c in summed)]
    return kept, place.node("Reshape", [value, place.integers(np.array(shape))], shape)


def _summed(left: str, right: str, output: str, known: Mapping[str, int]) -> list[str]:
    """Letters that two terms share and that the result lacks."""
    return [c for c in left if c in right and c not in output and known[c] > 1]


def _parsed(node: ir.Node) -> tuple[list[str], str]:
    given = node.attributes["equation"].as_string()
    left, arrow, output = given.replace(" ", "").partition("->")
    if not arrow:
        output = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    terms = left.split(",")
    plain = all(
        set(term) <= set(_LETTERS) and len(set(term)) == len(term) for term in (*terms, output)
    )
    if not plain or not set(output) <= set(left) or len(terms) != len(node.inputs):
        raise ChunkingError(
            f"{described(node)}: its equation {given!r} cannot be proved; write each term with "
            "different letters, without an ellipsis"
        )
    return terms, output

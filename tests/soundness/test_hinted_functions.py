"""Attacks on hinted softmax, LayerNormalization, GELU and products of activations.

Each makes some hints wrong and fits all later ones to them; what is asked is whether ezkl finds
every constraint satisfied. The freedom that the checks leave, and that does not matter, is tried as
well, so that each refusal is seen to come from the amount that is wrong.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.soundness.hinted_forger import (
    Change,
    Forger,
    Target,
    at,
    moved_down,
    nothing,
    root_off_by,
    shares,
)
from tests.unit.chunking.hinted_cases import Case, inputs, node
from tests.unit.chunking.hinted_circuit import NUMBERS
from tests.unit.chunking.test_hinted_functions import CASES, gelu

Ints = NDArray[np.int64]
Step = Mapping[str, Any]

MODELS = {
    "softmax": CASES["softmax"],
    "tied softmax": Case(nodes=[node("Softmax", "x", axis=-1)], x=[2, 16], y=[2, 16]),
    "layer norm": CASES["layer norm"],
    "gelu": gelu("Div x, x (1 + erf) half"),
    "product": CASES["product of activations"],
}

TABLE = (1 << NUMBERS.logrows) - 8
"""Where ezkl's table ends: five rows of halo2's blinding, and three."""


TOPS = [1, 3, 9, 12], [11]
"""Of the tied softmax's rows: both of its groups hold some of the first row's."""


def scores() -> dict[str, NDArray[np.float32]]:
    """One row with four tied scores above all others, and one with a single score."""
    drawn = np.random.default_rng(7).integers(-900, 100, size=(2, 16))
    for row, places in enumerate(TOPS):
        drawn[row, places] = 140
    return {"x": (drawn / 2**NUMBERS.scale).astype(np.float32)}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Target]:
    return {
        name: Target(
            tmp_path_factory.mktemp("target"),
            case.proto(),
            NUMBERS,
            scores() if name == "tied softmax" else inputs(case, NUMBERS),
        )
        for name, case in MODELS.items()
    }


def raised(*edits: tuple[int, int, int]) -> Change:
    """Hints of a step raised: (which vector of them, element, amount)."""

    def change(forger: Forger, step: Step) -> None:
        for which, place, amount in edits:
            forger.raise_hint(which, place, amount)

    return change


def both(*changes: Change) -> Change:
    def change(forger: Forger, step: Step) -> None:
        for each in changes:
            each(forger, step)

    return change


def hints_after(target: Target, number: int) -> list[list[int]]:
    """The honest hints of one of the settled forms."""
    found: list[list[int]] = []

    def keep(forger: Forger, step: Step) -> None:
        found.extend([int(v) for v in vector] for vector in forger.hints[forger.start :])

    target.vector(at("settle", number, keep))
    return found


@pytest.mark.parametrize("name", sorted(MODELS))
def test_honest_hints_are_accepted(targets: Mapping[str, Target], name: str) -> None:
    target = targets[name]
    assert target.accepts(target.vector(nothing))


@pytest.mark.parametrize(("name", "number"), [("softmax", 2), ("gelu", 1), ("product", 0)])
def test_digits_outside_the_table_are_refused_where_all_equations_hold(
    targets: Mapping[str, Target], name: str, number: int
) -> None:
    """The results' two digits, so that the value is the same: a function's table is a range check.

    Digits within the table, of the same value, are accepted.
    """
    target = targets[name]
    lows, highs, *_ = hints_after(target, number)
    weight = 1 << NUMBERS.overlap_bits

    def carried(amount: int) -> bool:
        change = at("settle", number, raised((0, place, amount * weight), (1, place, -amount)))
        return target.accepts(target.vector(change))

    place = next(i for i, low in enumerate(lows) if low >= weight)
    assert carried(-1)
    down = lows[place] // weight + 1
    assert not carried(-down)
    up = -(-(TABLE - lows[place]) // weight)
    assert up <= highs[place]
    assert not carried(up)


# Softmax. Its steps: the moved scores, the reciprocals, the rounded results, the outputs.


@pytest.mark.parametrize("factor", [1.01, 0.99, 1.001, 0.999, 2.0, 0.5])
def test_softmax_whose_shares_add_up_to_something_else_is_refused(
    targets: Mapping[str, Target], factor: float
) -> None:
    target = targets["softmax"]
    for rows in (slice(None), slice(1, 2)):
        change = shares(lambda share: round(share * factor), rows)
        assert not target.accepts(target.vector(change)), rows


def test_next_reciprocal_is_accepted_and_the_one_after_is_not(
    targets: Mapping[str, Target],
) -> None:
    """(r - 1) s <= C <= (r + 1) s: the reciprocal, rounded down or up; one in 60 000."""
    target = targets["softmax"]

    def off_by(amount: int) -> bool:
        return target.accepts(target.vector(shares(lambda share: share + amount, slice(0, 1))))

    assert off_by(0)
    assert [off_by(1), off_by(-1)].count(True) == 1
    assert not off_by(2)
    assert not off_by(-2)


@pytest.mark.parametrize("name", ["softmax", "tied softmax"])
def test_row_whose_largest_score_stands_below_the_tables_top_is_refused(
    targets: Mapping[str, Target], name: str
) -> None:
    """Down by the logarithm of its sum it stood with the reciprocal's range alone (log 4 of it).

    Four tied scores of sixteen then had 0.13 % less of the row together at scale 7, and at
    scale 12 13 quanta; ten of 1,024 a third less.
    """
    target = targets[name]
    assert target.accepts(target.vector(moved_down(0)))
    for amount in (1, 2, 10, round(math.log(4) * 2**NUMBERS.scale), 5 << NUMBERS.scale):
        assert not target.accepts(target.vector(moved_down(amount))), amount


def test_row_whose_largest_score_stands_above_the_tables_top_is_refused(
    targets: Mapping[str, Target],
) -> None:
    target = targets["tied softmax"]
    for amount in (-1, -8, -23):
        assert not target.accepts(target.vector(moved_down(amount))), amount


def named(wrong: Callable[[Ints], Ints], amount: int = 0) -> Change:
    """Other one-hot hints than the honest ones, [group, row] without the first group's."""

    def change(forger: Forger, step: Step) -> None:
        (honest,) = forger.hints[forger.start :]
        forger.hints[forger.start :] = [wrong(honest.reshape(-1, 2)).ravel()]

    return both(moved_down(amount), at("pin", 0, change))


def test_group_of_a_rows_top_is_named_and_no_other(targets: Mapping[str, Target]) -> None:
    """Both groups of the first row hold a top: either may be named, and nothing else."""
    target = targets["tied softmax"]
    assert target.accepts(target.vector())
    honest = target.outputs()
    first = np.array([[1, 0]])
    for change, passes in (
        (named(lambda b: b), True),
        (named(lambda b: b ^ first), True),  # the other tie
        (named(lambda b: b ^ first[:, ::-1]), False),  # no top there
        (named(lambda b: b + 2 * first), False),
        (named(lambda b: b - first), False),
        (named(lambda b: 0 * b, amount=1), False),
        (named(lambda b: 0 * b + 1, amount=1), False),
        (named(lambda b: 0 * b - 1, amount=1), False),
        (named(lambda b: 0 * b + 2, amount=1), False),
    ):
        assert target.accepts(target.vector(change)) is passes
        if passes:
            assert target.outputs() == honest


def test_products_of_two_rows_that_cancel_are_refused(targets: Mapping[str, Target]) -> None:
    """One sum for all rows: -b of one row would make up for b of another, were it a digit."""
    target = targets["tied softmax"]
    change = named(lambda b: np.array([[1, -1]]), amount=1)
    assert not target.accepts(target.vector(change))


@pytest.mark.parametrize("amount", [1, 5, -1, -100])
def test_wrong_argument_of_the_exponential_is_refused(
    targets: Mapping[str, Target], amount: int
) -> None:
    """The first score's digit alone; and with its distance, so that the equation still holds."""
    target = targets["softmax"]

    def follow(forger: Forger, step: Step) -> None:
        forger.raise_wire(step["wire"], 0, -amount)
        forger.raise_wire(step["below"], 0, amount)

    for edits in (((0, 0, amount),), ((0, 0, amount), (1, 0, -amount))):
        change = at("settle", 0, both(raised(*edits), follow))
        assert not target.accepts(target.vector(change)), edits


def test_row_moved_by_something_else_than_its_scores_follow_is_refused(
    targets: Mapping[str, Target],
) -> None:
    """Only the hint of the move is wrong: results, distances and exponents are as they were."""
    target = targets["softmax"]
    for amount in (1, -1, 8):
        assert not target.accepts(target.vector(at("settle", 0, raised((3, 0, amount)))))


def test_share_given_from_one_key_to_another_is_refused(targets: Mapping[str, Target]) -> None:
    """The sum is right; the quotients are not."""
    target = targets["softmax"]

    def follow(forger: Forger, step: Step) -> None:
        forger.raise_wire(step["wire"], 1, 20)
        forger.raise_wire(step["wire"], 2, -20)

    results = hints_after(target, 1)[0]
    assert results[2] >= 20
    change = at("settle", 1, both(raised((0, 1, 20), (0, 2, -20)), follow))
    assert not target.accepts(target.vector(change))


def test_digits_of_a_remainder_in_each_others_places_are_refused(
    targets: Mapping[str, Target],
) -> None:
    target = targets["softmax"]
    (step,) = [s for s in target.steps() if s["do"] == "settle" and s["divisor"][1] == 4]
    slots = step["layout"][3]
    _, lowest, second, third, highest = hints_after(target, 1)
    # The first slot's lowest digit is computed: slot 1 is the first of `lowest`.
    places = [(1, 0, lowest), (2, 1, second), (3, 1, third), (4, 1, highest)]
    assert len(lowest) == len(second) // slots * (slots - 1)
    for (which, place, digits), (other, spot, others) in itertools.pairwise(places):
        difference = others[spot] - digits[place]
        assert difference != 0
        change = at("settle", 1, raised((which, place, difference), (other, spot, -difference)))
        assert not target.accepts(target.vector(change)), (which, other)


def test_other_digits_of_the_same_remainder_change_nothing(targets: Mapping[str, Target]) -> None:
    """A carry: 2^9 of one place is one of the next."""
    target = targets["softmax"]
    assert target.accepts(target.vector())
    honest = target.outputs()
    _, _, second, third, _ = hints_after(target, 1)
    place = next(i for i, v in enumerate(third) if v > 0 and second[i] + 512 < NUMBERS.divisor)
    change = at("settle", 1, raised((2, place, 512), (3, place, -1)))
    assert target.accepts(target.vector(change))
    assert target.outputs() == honest


# LayerNormalization.


def test_rewritten_honest_root_is_accepted(targets: Mapping[str, Target]) -> None:
    target = targets["layer norm"]
    assert target.accepts(target.vector(root_off_by(0)))


def test_next_root_is_accepted_and_the_one_after_is_not(targets: Mapping[str, Target]) -> None:
    """(r - 1)^2 W <= C <= (r + 1)^2 W: the root, rounded down or up."""
    target = targets["layer norm"]

    def off_by(amount: int, row: int) -> bool:
        return target.accepts(target.vector(root_off_by(amount, row=row)))

    for row in (0, 2):
        assert [off_by(1, row), off_by(-1, row)].count(True) == 1
        assert not any(off_by(amount, row) for amount in (2, -2, 64))


def test_negative_root_is_refused(targets: Mapping[str, Target]) -> None:
    """Its square would do, but its digits are not in the table."""
    target, honest = targets["layer norm"], []

    def keep(forger: Forger, step: Step) -> None:
        honest.append(forger.fine(step)[0])

    target.vector(at("normalise", 0, keep))
    assert not target.accepts(target.vector(root_off_by(-2 * honest[0])))


# GELU. The first settled form holds max(v, 0) and max(-v, 0), the second the results.


def halves(amount: int, place: int) -> Change:
    """Both halves of an argument raised, so that their difference is the same; |v| is not."""

    def change(forger: Forger, step: Step) -> None:
        raised((0, place, amount), (1, place, amount))(forger, step)
        forger.raise_wire(step["wire"], place, amount)
        forger.raise_wire(step["below"], place, amount)

    return at("settle", 0, change)


@pytest.mark.parametrize("amount", [1, 10, 200])
def test_gelu_of_an_argument_that_is_positive_and_negative_is_refused(
    targets: Mapping[str, Target], amount: int
) -> None:
    target = targets["gelu"]
    positive, negative, *_ = hints_after(target, 0)
    first = next(i for i, v in enumerate(positive) if 0 < v < 700)
    second = next(i for i, v in enumerate(negative) if 0 < v < 700)
    for place in (first, second):
        assert not target.accepts(target.vector(halves(amount, place))), place


def test_gelu_whose_products_cancel_is_refused(targets: Mapping[str, Target]) -> None:
    """(v + a) a and (w - a) (-a) add up to zero for w = v + 2 a, but -a is no digit."""
    target = targets["gelu"]
    values = hints_after(target, 0)[0]
    first, second = next(
        (i, j)
        for i, j in itertools.permutations(range(len(values)), 2)
        if values[j] > values[i] > 0 and (values[j] - values[i]) % 2 == 0
    )
    half = (values[second] - values[first]) // 2
    change = both(
        raised((0, first, half), (1, first, half)), raised((0, second, -half), (1, second, -half))
    )
    assert not target.accepts(target.vector(at("settle", 0, change)))


@pytest.mark.parametrize("amount", [1, -1, 50])
def test_gelu_of_another_entry_of_the_table_is_refused(
    targets: Mapping[str, Target], amount: int
) -> None:
    target = targets["gelu"]
    positive, negative, *_ = hints_after(target, 0)
    for which, values, wire in ((0, positive, "wire"), (1, negative, "below")):
        place = next(i for i, v in enumerate(values) if 0 < v < 700)

        def follow(forger: Forger, step: Step, wire: str = wire, place: int = place) -> None:
            forger.raise_wire(step[wire], place, amount)

        change = at("settle", 0, both(raised((which, place, amount)), follow))
        assert not target.accepts(target.vector(change)), wire


def test_gelu_of_the_other_sign_is_refused(targets: Mapping[str, Target]) -> None:
    target = targets["gelu"]
    positive, _, *_ = hints_after(target, 0)
    place = next(i for i, v in enumerate(positive) if v > 0)
    value = positive[place]

    def follow(forger: Forger, step: Step) -> None:
        forger.raise_wire(step["wire"], place, -value)
        forger.raise_wire(step["below"], place, value)

    change = at("settle", 0, both(raised((0, place, -value), (1, place, value)), follow))
    assert not target.accepts(target.vector(change))


# Products of activations.


def test_results_of_a_product_that_make_up_for_each_other_are_refused(
    targets: Mapping[str, Target],
) -> None:
    """Two results of one packed equation, with and without their remainders."""
    target = targets["product"]
    (stride,) = target.stride
    (step,) = [s for s in target.steps() if s["do"] == "settle"]
    divisor, weight = step["divisor"][0], 1 << stride
    assert step["layout"][3] == 3
    # The second equation. Vectors: results' low digits, high digits, remainders of slots 1 and 2.
    one, two, r, rest = 4, 5, 2, 3
    assert min(hints_after(target, 0)[2][r : rest + 1]) + divisor >= TABLE
    for edits in (
        ((0, one - 1, 1), (0, one, -1)),
        ((0, one - 1, weight), (0, one, -1)),
        ((0, one, -weight), (0, two, 1)),
        ((0, one, 1), (2, r, -divisor)),
        ((0, one, -1), (2, r, divisor)),
        ((0, one, 1), (0, two, -1), (2, r, -divisor), (2, rest, divisor)),
        ((0, one, 1), (2, rest, -divisor)),
        ((2, r, weight), (2, rest, -1)),
        ((2, r, 1),),
        ((2, r, -1),),
    ):
        change = at("settle", 0, raised(*edits))
        assert not target.accepts(target.vector(change)), edits


def test_quotient_below_passes_only_within_the_tables_slack(targets: Mapping[str, Target]) -> None:
    """All that is left of rounding's freedom: a remainder of [d, T), and so one less.

    d is 896 here, the largest multiple of 2^7 in 992, so that it is more than elsewhere.
    """
    target = targets["product"]
    divisor = next(s for s in target.steps() if s["do"] == "settle")["divisor"][0]
    assert 2 * divisor > TABLE
    remainders, seen = hints_after(target, 0)[2], set()
    for place, remainder in enumerate(remainders):
        result = place // 2 * 3 + place % 2 + 1
        for quotients in (-1, 1, -2):
            passes = quotients == -1 and remainder + divisor < TABLE
            edits = (0, result, quotients), (2, place, -quotients * divisor)
            change = at("settle", 0, raised(*edits))
            assert target.accepts(target.vector(change)) is passes, (remainder, quotients)
            seen.add(passes)
    assert seen == {True, False}


def test_other_digits_of_the_same_result_change_nothing(targets: Mapping[str, Target]) -> None:
    target = targets["product"]
    assert target.accepts(target.vector())
    honest = target.outputs()
    low, high, *_ = hints_after(target, 0)
    weight = 1 << NUMBERS.overlap_bits
    place = next(i for i, v in enumerate(low) if v >= weight and high[i] + 1 < NUMBERS.divisor)
    change = at("settle", 0, raised((0, place, -weight), (1, place, 1)))
    assert target.accepts(target.vector(change))
    assert target.outputs() == honest

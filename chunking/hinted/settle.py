"""Settling: rounding a form's sums to a wire of hinted digits.

A form's sums Y, d times as fine as the result, are to become Z = floor((Y + d/2) / d), a maximum
over windows, max(., 0). With c the constants (bias, d/2, the offset that makes signed results
digits) the hints are the result M, how far below it each candidate lies, D, and the remainder R:

    Y + c = d (M - D) + R       for every candidate
    0 <= R < T                  by lookups, digit by digit; M, D >= 0 likewise
    M * prod D = 0              for every window (without M where there is no ReLU)

The equations of p candidates are packed into one: the sum of each times S^i. The lowest digit of
the first R is not a hint but what the equation leaves, and looked up: so the equation holds by
construction. The product X W is packed too, so p multiplications become one: over channels with
packed weights (sum S^i W_i costs as much as W has elements), or over groups with packed inputs.

Soundness: |Y + c - d (M - D) - R| < S for everything that the lookups admit, and p strides fit the
field (`numbers.stride_bits`): so a packed equation holds only if each of its equations does. The
products are not negative, so one sum of all of them is zero only if each is; it cannot wrap.

For a softmax the candidates of a row share another hint, X, and two distances below it: E, which
counts, and D, of what lies too far below to count. The result is M = top - E:

    Y + c = d (X - E - D) + R
    M * D = 0, M >= 0

So D is zero unless E is `top`, and no result is above `top`. That one of them stands there, X thus
being the row's largest, is for whoever settles the rows to hold (`pins.pin_rows`).

Elements that are dropped from their row have an equation without X and without a result,

    Y + c - 2 d offset = -d (E + D) + R

which hints for every value in range satisfy, whatever the row's largest element is: they are there
because a packed equation holds all of its elements. Nothing else reads their hints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zkml_ray.chunking.hinted.challenge import Identity
from zkml_ray.chunking.hinted.circuit import Circuit
from zkml_ray.chunking.hinted.clamp import Clamp, Clamped, clamped
from zkml_ray.chunking.hinted.forms import NotHintedError, Pending
from zkml_ray.chunking.hinted.grid import Ints, View, Wire
from zkml_ray.chunking.hinted.layout import Layout
from zkml_ray.chunking.hinted.numbers import Arithmetic, packable, stride_bits
from zkml_ray.chunking.hinted.rounding import Quantised
from zkml_ray.chunking.hinted.sums import Step, packed_sums
from zkml_ray.chunking.hinted.weighed import is_cheaper, weighed_sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How a form is to be settled.

    Attributes:
        resolution: Whole numbers per unit of the result.
        offset: Added to results to make them digits; 0 where they cannot be negative.
        result_digits: Digits of a result.
        below_digits: Digits of a distance below the result; 0 where there is none.
        keeps_below: Whether something reads the distances.
        row_top: Where the largest result of a row is moved to; None: rows are not moved. The
            distances below it, of one digit, are kept in `Settled.below`.
        kept: Of moved rows, shape [groups, channels]: the elements that have a result; None: all.
        clamp_top: Results are magnitudes that end here, with signs apart (`clamp`); None: not so.
        clamp_signed: Whether there are signs. If not, results are what they leave of `clamp_top`,
            and whoever settles looks them up.
    """

    resolution: float
    offset: int
    result_digits: int
    below_digits: int
    keeps_below: bool = False
    row_top: int | None = None
    kept: npt.NDArray[np.bool_] | None = None
    clamp_top: int | None = None
    clamp_signed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A settled form.

    Attributes:
        wire: The results.
        index: Of the pending tensor's shape: where its elements are in the wire; -1: dropped.
        below: The distances below the results, in the wire's order; "" unless they are kept.
        sign: The signs of clamped results, in the wire's order.
    """

    wire: Wire
    index: Ints
    below: str
    sign: str = ""

    def view(self) -> View:
        """The results, in the pending tensor's shape."""
        return View(wire=self.wire, index=self.index)


def settle(
    circuit: Circuit,
    numbers: Arithmetic,
    pending: Pending,
    rounding: Rounding,
    name: str,
    identity: Identity | None = None,
) -> tuple[Settled, Step]:
    """Round a pending tensor.

    Args:
        circuit: Where the checks go.
        numbers: Its digits and ranges.
        pending: What is rounded.
        rounding: How.
        name: The tensor's, for error messages.
        identity: What a challenge checks, of circuits that have one (`challenge`).

    Returns:
        The result, and the recipe's step.

    Raises:
        NotHintedError: Its numbers do not fit.
    """
    form = pending.form
    groups = pending.windows
    if groups is None:
        groups = np.arange(form.groups, dtype=np.int64)[:, None]
    moved = rounding.row_top is not None
    # A row's largest element is made of digits.
    offset = numbers.offset if moved else rounding.offset
    dropped = None if rounding.kept is None else ~rounding.kept
    quantised = Quantised(
        form, numbers, resolution=rounding.resolution, offset=offset, moved_down=dropped
    )
    divisor = quantised.divisor
    reach = quantised.magnitude + divisor.remainder_bound(numbers)
    reach += divisor.value * numbers.bound_of(rounding.result_digits)
    reach += divisor.value * numbers.bound_of(rounding.below_digits)
    reach += divisor.value * (numbers.value_bound if moved else 0)
    clamp = None
    if rounding.clamp_top is not None:
        most, signed = quantised.magnitude // divisor.value + 1, rounding.clamp_signed
        clamp = Clamp.of(numbers, rounding.clamp_top, most, signed=signed)
        reach += divisor.value * clamp.bound(numbers)
    layout = Layout.choose(
        quantised, groups, packable(reach), stride_bits(reach), only_channels=moved
    )
    challenged = identity is not None and is_cheaper(quantised, groups, layout)
    if identity is not None and challenged:
        if not packable(reach):
            raise NotHintedError("sums are too large for a field element")
        layout = Layout(groups, form.channels, 1, stride_bits(reach), over_channels=True)
        checks = _Checks(circuit, numbers, layout, quantised, rounding, clamp, challenged=True)
        error, terms = weighed_sums(circuit, identity, quantised, layout)
        error = circuit.add(error, checks.weighed(identity), 1)
        identity.hold(error, quantised.nominal)
    else:
        sums, terms = packed_sums(circuit, quantised, layout)
        checks = _Checks(circuit, numbers, layout, quantised, rounding, clamp)
        circuit.check_digits(checks.left_of(sums), layout.units, quantised.nominal)
    if rounding.below_digits:
        checks.hold_products(with_result=pending.relu or moved)
    wire = checks.result()
    below = checks.distances_below() if rounding.keeps_below or moved else ""
    step = {
        "do": "settle",
        "name": name,
        "wire": wire.name,
        "layout": list(layout.shape),
        "constants": [circuit.whole(layout.arranged_constant(c)) for c in quantised.constants],
        "valid": circuit.whole(layout.valid.astype(np.int64)),
        "divisor": [divisor.value, divisor.digits, divisor.step],
        "challenged": challenged,
        "relu": pending.relu and not moved,
        "result_digits": rounding.result_digits,
        "below": below,
        "below_digits": rounding.below_digits,
        "row_top": rounding.row_top,
        "offset": rounding.offset,
        "clamp": None
        if clamp is None
        else [clamp.top, clamp.beyond.count, clamp.beyond.step, clamp.signed],
        "sign": checks.sign,
        "terms": terms,
    }
    if rounding.kept is not None:
        step["kept"] = circuit.whole(checks.taken.astype(np.int64))
    index = layout.positions(checks.taken)[pending.sites]
    return Settled(wire=wire, index=index, below=below, sign=checks.sign), step


class _Checks:
    """Hints of one settled form and what holds them."""

    def __init__(
        self,
        circuit: Circuit,
        numbers: Arithmetic,
        layout: Layout,
        form: Quantised,
        rounding: Rounding,
        clamp: Clamp | None,
        *,
        challenged: bool = False,
    ) -> None:
        self._circuit = circuit
        self._numbers = numbers
        self._layout = layout
        self._form = form
        self._rounding = rounding
        valid = layout.valid
        every = np.broadcast_to(valid, layout.shape)
        # What has a result.
        self.taken = valid if rounding.kept is None else layout.where(rounding.kept)
        # In the recipe's order.
        self._results = [self._placed(valid) for _ in range(rounding.result_digits)]
        self._clamped: Clamped | None = None
        if clamp is not None:
            self._clamped = clamped(circuit, numbers, clamp, int(valid.sum()))
        # Of rows these are the distances E.
        self._moved = rounding.row_top is not None
        self._below = ""
        self._results_below_top = ""
        self._distances = [self._placed(every) for _ in range(rounding.below_digits)]
        self._moves: list[Ints] = []
        if self._moved:
            self._moves = [circuit.hints(layout.shape[1]) for _ in range(numbers.digits)]
        first = every.copy()
        if not challenged:
            first[..., 0] = False
        places = range(form.divisor.digits)
        self._remainders = [self._placed(every if place else first) for place in places]

    def left_of(self, sums: str) -> str:
        """What packed equations leave for the lowest digits of the first remainders, [units]."""
        circuit, layout, divisor = self._circuit, self._layout, self._form.divisor
        t, a, b, p = layout.shape
        powers = circuit.powers(layout.bits, p)
        factors = self._times(powers, divisor.value, p)
        if self._clamped is not None:
            results = self._packed_values(self._clamped.value, factors)
        else:
            results = self._weighted(self._results, factors, self._numbers.overlap_bits, a * b)
        if self._moved:
            results = circuit.subtract(self._tops(factors), results, a * b)
        head = circuit.subtract(results, self._packed_constant(), a * b)
        if t > 1:
            head = circuit.concat([head] * t)
        taken = head
        for place, digits in enumerate(self._remainders):
            # The first remainder's lowest digit is what is left.
            skipped = 1 if place == 0 else 0
            if p - skipped == 0:
                continue
            shifted = self._times(powers, 1 << (divisor.step * place), p)
            taken = circuit.add(taken, self._packed(digits, shifted, skipped), layout.units)
        if self._distances:
            down = self._weighted(
                self._distances, factors, self._numbers.overlap_bits, layout.units
            )
            taken = circuit.subtract(taken, down, layout.units)
        raised = circuit.raised(taken, 0, self._form.nominal)
        return circuit.subtract(sums, raised, layout.units)

    def weighed(self, identity: Identity) -> str:
        """Sum of rho^i sigma^j (c - d (M - D) - R), shape [1], at the form's nominal scale."""
        circuit, divisor, step = self._circuit, self._form.divisor, self._numbers.overlap_bits
        t, a, b, _ = self._layout.shape
        rows = identity.rho(t * a)
        # What stands once a window is taken from each of its candidates.
        shared = rows
        if t > 1:
            turned = np.arange(t * a, dtype=np.int64).reshape(t, a).T
            shared = circuit.sum_rows(circuit.gather(rows, turned), a, t)
        channels = self._constant_channels(shared)
        # Of rows that are moved, M = X - E.
        result_sign = 1 if self._moved else -1
        for sign, factor, width, taken, count, digits in (
            (result_sign, divisor.value, step, shared, a, self._results),
            (1, divisor.value, step, rows, t * a, self._distances),
            (-1, 1, divisor.step, rows, t * a, self._remainders),
        ):
            for place, index in enumerate(digits):
                flat = circuit.hinted(index.reshape(-1, b))
                summed = circuit.product("i,ib->b", taken, flat, outputs=b, length=count)
                summed = self._times(summed, factor << (width * place), b)
                combine = circuit.add if sign > 0 else circuit.subtract
                channels = combine(channels, summed, b)
        if self._clamped is not None:
            values = circuit.reshape(self._clamped.value, [a, b])
            summed = circuit.product("i,ib->b", shared, values, outputs=b, length=a)
            channels = circuit.subtract(channels, self._times(summed, divisor.value, b), b)
        if self._moved:
            tops = circuit.multiply(shared, self._whole(self._moves), a)
            taken_rows = self.taken[..., 0].astype(np.int64)
            mask = circuit.whole(np.ones((a, 1)) if taken_rows.all() else taken_rows)
            size = 1 if taken_rows.all() else b
            summed = circuit.product("i,ib->b", tops, mask, outputs=size, length=a)
            channels = circuit.subtract(channels, self._times(summed, divisor.value, size), b)
        total = circuit.product("b,b->", channels, identity.sigma(b), outputs=1, length=b)
        return circuit.raised(circuit.reshape(total, [1]), 0, self._form.nominal)

    def _constant_channels(self, shared: str) -> str:
        """Sum over the rows of what is taken once a window times c_ij, [channels]."""
        parts = [self._constant_part(shared, part) for part in self._form.constants]
        total = parts[0]
        for part in parts[1:]:
            total = self._circuit.add(total, part, self._layout.shape[2])
        return total

    def _constant_part(self, shared: str, constant: Ints) -> str:
        circuit = self._circuit
        _, a, b, _ = self._layout.shape
        arranged = self._layout.arranged_constant(constant)[..., 0]
        if arranged.shape[0] != 1:
            raise NotHintedError("constants that differ inside a pooling window")
        if arranged.shape[1] == 1:
            every = circuit.sum_rows(circuit.reshape(shared, [1, a]), 1, a)
            return circuit.multiply(circuit.whole(arranged[0, 0]), every, b)
        matrix = circuit.whole(arranged[0])
        return circuit.product("i,ib->b", shared, matrix, outputs=b, length=a)

    def hold_products(self, *, with_result: bool) -> None:
        """One of the candidates' distances, or the result, is zero."""
        circuit, taken = self._circuit, self.taken
        count = int(taken.sum())
        factors = [
            self._sum_of([digits[step][taken] for digits in self._distances])
            for step in range(self._layout.shape[0])
        ]
        if with_result:
            results = [digits[taken] for digits in self._results]
            factors.append(self._below_top() if self._moved else self._sum_of(results))
        if len(factors) < 2:
            raise NotHintedError("a maximum of one element")
        half = len(factors) // 2
        left, right = (self._product(part, count) for part in (factors[:half], factors[half:]))
        total = circuit.product("i,i->", left, right, outputs=1, length=count)
        largest = self._numbers.digit_bound * max(
            self._rounding.result_digits, self._rounding.below_digits
        )
        circuit.check_zero(circuit.reshape(total, [1]), count * largest ** len(factors))

    def result(self) -> Wire:
        """The wire of the results: their digits put together."""
        circuit, rounding = self._circuit, self._rounding
        size = int(self.taken.sum())
        if rounding.row_top is not None:
            return Wire(
                name=self._below_top(),
                size=size,
                low=0,
                high=rounding.row_top,
                resolution=rounding.resolution,
            )
        if self._clamped is not None and not self._rounding.clamp_signed:
            top = self._rounding.clamp_top or 0
            return Wire(
                name=self._clamped.left,
                size=size,
                low=0,
                high=top,
                resolution=rounding.resolution,
            )
        if self._clamped is not None:
            return Wire(
                name=self._clamped.within,
                size=size,
                low=0,
                high=self._numbers.digit_bound,
                resolution=rounding.resolution,
            )
        tensor = self._whole([digits[self.taken] for digits in self._results])
        if rounding.offset:
            tensor = circuit.subtract(tensor, circuit.whole([rounding.offset]), size)
        bound = self._numbers.bound_of(rounding.result_digits)
        return Wire(
            name=tensor,
            size=size,
            low=-rounding.offset,
            high=bound - rounding.offset,
            resolution=rounding.resolution,
        )

    @property
    def sign(self) -> str:
        """The signs of clamped results."""
        return self._clamped.sign if self._clamped is not None else ""

    def distances_below(self) -> str:
        """The distances of a form without windows, in the results' order."""
        if not self._below:
            taken = self.taken
            kept = [digits[0][taken] for digits in self._distances]
            self._below = self._whole([self._results[0][taken]] if self._moved else kept)
        return self._below

    def _whole(self, digits: Sequence[Ints]) -> str:
        circuit = self._circuit
        tensor = circuit.hinted(digits[0])
        for place, index in enumerate(digits[1:], start=1):
            weight = circuit.whole([1 << (self._numbers.overlap_bits * place)])
            high = circuit.multiply(circuit.hinted(index), weight, index.size)
            tensor = circuit.add(tensor, high, index.size)
        return tensor

    def _weighted(self, digits: Sequence[Ints], factors: str, step: int, rows: int) -> str:
        """Packed values of hinted digits: one a row of the positions."""
        total = ""
        for place, index in enumerate(digits):
            weight = self._times(factors, 1 << (step * place), self._layout.width)
            part = self._packed(index, weight, 0)
            total = self._circuit.add(total, part, rows) if total else part
        return total

    def _packed(self, index: Ints, weights: str, skipped: int) -> str:
        """Hints times weights, summed over slots from `skipped` on."""
        circuit, p = self._circuit, self._layout.width
        rows = index.reshape(-1, p)[:, skipped:]
        if p == 1:
            return circuit.multiply(circuit.hinted(rows.ravel()), weights, len(rows))
        if skipped:
            weights = circuit.gather(weights, np.arange(skipped, p))
        return circuit.product(
            "um,m->u", circuit.hinted(rows), weights, outputs=len(rows), length=p - skipped
        )

    def _packed_values(self, tensor: str, weights: str) -> str:
        """Computed results times weights, summed over slots."""
        circuit, valid, p = self._circuit, self._layout.valid, self._layout.width
        count = int(valid.sum())
        place = np.full(valid.shape, -1, dtype=np.int64)
        place[valid] = np.arange(count)
        rows = place.reshape(-1, p)
        if p == 1:
            return circuit.multiply(
                circuit.gather(tensor, rows.ravel(), size=count), weights, len(rows)
            )
        values = circuit.gather(tensor, rows, size=count)
        return circuit.product("um,m->u", values, weights, outputs=len(rows), length=p)

    def _below_top(self) -> str:
        """Results of rows: how far E leaves them above the table's beginning."""
        if not self._results_below_top:
            circuit, distances = self._circuit, self.distances_below()
            top, size = circuit.whole([self._rounding.row_top or 0]), int(self.taken.sum())
            self._results_below_top = circuit.subtract(top, distances, size)
        return self._results_below_top

    def _tops(self, factors: str) -> str:
        """The rows' largest elements, packed: [A B]."""
        circuit = self._circuit
        _, a, b, p = self._layout.shape
        moves = self._whole(self._moves)
        kinds, kind = np.unique(self.taken.reshape(a, b * p), axis=0, return_inverse=True)
        mask = circuit.whole(kinds.reshape(-1, p).astype(np.int64))  # [kinds B, p]
        spread = circuit.product("bp,p->b", mask, factors, outputs=len(kinds) * b, length=p)
        if len(kinds) > 1:
            spread = circuit.gather(spread, kind.reshape(-1, 1) * b + np.arange(b))
        product = circuit.multiply(circuit.reshape(moves, [a, 1]), spread, a * b)
        return circuit.reshape(product, [a * b])

    def _packed_constant(self) -> str:
        """[A B]: what is added to every sum, packed."""
        parts = [self._packed_part(part) for part in self._form.constants]
        total = parts[0]
        for part in parts[1:]:
            total = self._circuit.add(total, part, self._layout.shape[1] * self._layout.shape[2])
        return total

    def _packed_part(self, constant: Ints) -> str:
        circuit = self._circuit
        _, a, b, p = self._layout.shape
        arranged = self._layout.arranged_constant(constant)
        if arranged.shape[0] != 1:
            raise NotHintedError("constants that differ inside a pooling window")
        kind: Ints | None = None
        if self._rounding.kept is not None and arranged.shape[1] == a:
            # Rows of different heads are masked alike.
            arranged, kind = np.unique(arranged.reshape(a, b * p), axis=0, return_inverse=True)
        rows = arranged.reshape(-1, p)
        flat = circuit.reshape(circuit.whole(arranged), [len(rows), p])
        powers = circuit.powers(self._layout.bits, p)
        if p > 1:
            packed = circuit.product("um,m->u", flat, powers, outputs=len(rows), length=p)
        else:
            # Not the constant itself: see Circuit.raised.
            packed = circuit.multiply(circuit.reshape(flat, [len(rows)]), powers, len(rows))
        if kind is not None:
            return circuit.gather(packed, (kind.reshape(-1, 1) * b + np.arange(b)).ravel())
        if len(rows) == a * b:
            return packed
        return circuit.gather(packed, np.tile(np.arange(b), a))

    def _times(self, vector: str, factor: int, size: int) -> str:
        if factor == 1:
            return vector
        return self._circuit.multiply(vector, self._circuit.whole([factor]), size)

    def _sum_of(self, digits: Sequence[Ints]) -> str:
        """A vector that is zero where all of the digits are."""
        total = ""
        for index in digits:
            hinted = self._circuit.hinted(index)
            total = self._circuit.add(total, hinted, len(index)) if total else hinted
        return total

    def _product(self, factors: Sequence[str], size: int) -> str:
        result = factors[0]
        for factor in factors[1:]:
            result = self._circuit.multiply(result, factor, size)
        return result

    def _placed(self, mask: Any) -> Ints:
        """New hints where a mask is set, -1 elsewhere."""
        index = np.full(mask.shape, -1, dtype=np.int64)
        index[mask] = self._circuit.hints(int(mask.sum()))
        return index

"""All that some unknowns can be, where every unknown is a whole number at or above zero.

Bounds are narrowed constraint by constraint until nothing changes; then an interval is halved and
both halves are tried. That is complete: what it does not find does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Terms = Mapping[tuple[int, ...], int]

MAX_NODES: Final = 20_000


class TooManyError(Exception):
    """A search that does not end: the instance is too large."""


@dataclass(slots=True)
class Constraint:
    """low <= sum of factors times products of unknowns <= high."""

    terms: list[tuple[int, tuple[int, ...]]]
    low: int
    high: int


@dataclass(slots=True)
class Table:
    """result = function(argument), a function that does not fall."""

    argument: int
    result: int
    function: Callable[[int], int]


@dataclass(slots=True)
class Problem:
    """Unknowns, what holds of them, and which of them are asked for."""

    low: list[int] = field(default_factory=list)
    high: list[int] = field(default_factory=list)
    constraints: list[Constraint] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    late: set[int] = field(default_factory=set)
    """Unknowns that say less than others do: tried last."""

    def unknown(self, low: int, high: int) -> int:
        """A new one within bounds."""
        self.low.append(low)
        self.high.append(high)
        return len(self.low) - 1

    def hold(self, terms: Terms, low: int, high: int) -> None:
        """Add a constraint; the product of no unknowns is one."""
        constant = terms.get((), 0)
        named = [(factor, names) for names, factor in terms.items() if names and factor]
        self.constraints.append(Constraint(named, low - constant, high - constant))


class Solver:
    """Enumerates the values of some unknowns."""

    def __init__(self, problem: Problem, wanted: Sequence[int]) -> None:
        """Prepare.

        Args:
            problem: The problem.
            wanted: Unknowns that are asked for.
        """
        self._wanted = list(wanted)
        used = {n for part in problem.constraints for _, names in part.terms for n in names}
        used |= set(self._wanted)
        # A function has a value everywhere: one that nothing else is said of says nothing.
        tables = [table for table in problem.tables if table.result in used]
        self._parts: list[Constraint | Table] = [*problem.constraints, *tables]
        self._of: list[list[int]] = [[] for _ in problem.low]
        for index, part in enumerate(self._parts):
            names = (
                {n for _, product in part.terms for n in product}
                if isinstance(part, Constraint)
                else {part.argument, part.result}
            )
            for name in names:
                self._of[name].append(index)
        # What nothing is said of may be anything.
        most = [
            high if of else low
            for low, high, of in zip(problem.low, problem.high, self._of, strict=True)
        ]
        self._start = (list(problem.low), most)
        asked = set(self._wanted)
        # What a function gives follows from its argument.
        given = {table.result for table in tables} | problem.late
        sharing = [
            n for n, of in enumerate(self._of) if (len(of) > 1 and n not in given) or n in asked
        ]
        self._groups = (sharing, sorted(set(range(len(self._of))) - set(sharing)))
        self.found: set[tuple[int, ...]] = set()
        self.nodes = 0
        self._enough = 0

    def values(self, enough: int = 0) -> set[tuple[int, ...]]:
        """Every combination of the wanted unknowns that something can be completed to.

        Args:
            enough: Stop at so many; 0: all.
        """
        self._enough = enough
        low, high = (list(bound) for bound in self._start)
        if self._narrowed(low, high, list(range(len(self._parts)))):
            self._search(low, high)
        return self.found

    def _search(self, low: list[int], high: list[int]) -> None:
        stack = [(low, high)]
        while stack:
            low, high = stack.pop()
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise TooManyError(f"{self.nodes} nodes, {len(self.found)} found")
            fixed = all(low[n] == high[n] for n in self._wanted)
            key = tuple(low[n] for n in self._wanted)
            if fixed and key in self.found:
                continue
            chosen = self._chosen(low, high)
            if chosen is None:
                self.found.add(key)
                if len(self.found) == self._enough:
                    return
                continue
            middle = (low[chosen] + high[chosen]) // 2
            for least, most in ((middle + 1, high[chosen]), (low[chosen], middle)):
                other = (list(low), list(high))
                other[0][chosen], other[1][chosen] = least, most
                if self._narrowed(*other, list(self._of[chosen])):
                    stack.append(other)

    def _chosen(self, low: list[int], high: list[int]) -> int | None:
        """What has few values and stands in many constraints; last what stands in one."""
        for group in self._groups:
            free = [n for n in group if low[n] < high[n]]
            if free:
                return min(free, key=lambda n: (high[n] - low[n]) / max(len(self._of[n]), 1))
        return None

    def _narrowed(self, low: list[int], high: list[int], waiting: list[int]) -> bool:
        """Narrow bounds; False where nothing is left."""
        queued = set(waiting)
        while waiting:
            index = waiting.pop()
            queued.discard(index)
            part = self._parts[index]
            changed = (
                _held(part, low, high)
                if isinstance(part, Constraint)
                else _looked_up(part, low, high)
            )
            if changed is None:
                return False
            for name in changed:
                for other in self._of[name]:
                    if other not in queued:
                        queued.add(other)
                        waiting.append(other)
        return True


def _held(part: Constraint, low: list[int], high: list[int]) -> set[int] | None:
    changed: set[int] = set()
    while True:
        ends, least, most = [], 0, 0
        for factor, names in part.terms:
            small, large = factor, factor
            for name in names:
                small *= low[name]
                large *= high[name]
            if factor < 0:
                small, large = large, small
            ends.append((small, large))
            least += small
            most += large
        if least > part.high or most < part.low:
            return None
        again = False
        for (factor, names), (small, large) in zip(part.terms, ends, strict=True):
            # What this term may be, given the others.
            floor, ceiling = part.low - (most - large), part.high - (least - small)
            if floor <= small and ceiling >= large:
                continue
            if factor < 0:
                floor, ceiling = -ceiling, -floor
            size = abs(factor)
            floor, ceiling = -(-floor // size), ceiling // size
            for place, name in enumerate(names):
                rest_low = math.prod(low[n] for n in (*names[:place], *names[place + 1 :]))
                rest_high = math.prod(high[n] for n in (*names[:place], *names[place + 1 :]))
                if ceiling < 0 or (floor > 0 and rest_high == 0):
                    return None
                if rest_low > 0 and ceiling // rest_low < high[name]:
                    high[name] = ceiling // rest_low
                    changed.add(name)
                    again = True
                if floor > 0 and -(-floor // rest_high) > low[name]:
                    low[name] = -(-floor // rest_high)
                    changed.add(name)
                    again = True
                if low[name] > high[name]:
                    return None
        if not again:
            return changed


def _looked_up(part: Table, low: list[int], high: list[int]) -> set[int] | None:
    argument, result = part.argument, part.result
    changed: set[int] = set()
    while low[argument] <= high[argument] and part.function(low[argument]) < low[result]:
        low[argument] += 1
        changed.add(argument)
    while low[argument] <= high[argument] and part.function(high[argument]) > high[result]:
        high[argument] -= 1
        changed.add(argument)
    if low[argument] > high[argument]:
        return None
    least, most = part.function(low[argument]), part.function(high[argument])
    if least > low[result]:
        low[result] = least
        changed.add(result)
    if most < high[result]:
        high[result] = most
        changed.add(result)
    return None if low[result] > high[result] else changed

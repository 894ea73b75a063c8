"""Products checked by a challenge: one identity in place of every multiplication by a weight.

For a settled form with sums Y (`settle`), let

    e_ij = Y_ij + c_ij - d (M_ij - D_ij) - R_ij

with rows i and channels j. The prover commits to all that these are made of before it learns rho,
sigma and tau, and the circuit gives E = sum_f tau^f sum_ij rho^i sigma^j e_ij. It is zero for
few challenges unless every e_ij is (docs/adr/0037). A dense Y = A W then costs (rho^T A) . w' with
w' = W sigma, which the prover gives as well: V = sum_k t^k w'_k, with a challenge t that it learns
after having committed to w', tells the verifier that it is the right one. So the weights stand
nowhere in the circuit.

The circuit has three inputs, each in columns of its own, to which a proof commits in this order:
what the prover chooses (`extract.INPUT`), w' of all products (`WEIGHTED`), the challenges
(`CHALLENGES`). Its last output is the leaf (rho, sigma, tau, t, E, V).
"""

from __future__ import annotations

from copy import copy
from typing import Final

import numpy as np

from zkml_ray.chunking.hinted.circuit import Circuit, Mark
from zkml_ray.commitments.challenge import COUNT

WEIGHTED: Final = "zkml_ray/weighted"
"""Products' weights times powers of sigma, one product after the other."""

CHALLENGES: Final = "zkml_ray/challenges"
"""rho, sigma, tau and t."""


LEAF: Final = "zkml_ray/identity/leaf"


class Identity:
    """The identity of one circuit, form by form."""

    def __init__(self, circuit: Circuit) -> None:
        """Start with nothing held."""
        self._circuit = circuit
        self._total = ""
        self._nominal = 0
        self._forms = 0
        self._parts: dict[int, list[str]] = {}
        self._have: dict[int, int] = {}
        self.depths: list[int] = []

    @property
    def held(self) -> bool:
        """Whether any form is held by it."""
        return self._forms > 0

    def rho(self, count: int) -> str:
        """rho^1 .. rho^count."""
        return self._powers(0, count)

    def sigma(self, count: int) -> str:
        """sigma^1 .. sigma^count."""
        return self._powers(1, count)

    def weighted(self, depth: int) -> str:
        """The next product's w', [depth]."""
        start = sum(self.depths)
        self.depths.append(depth)
        return self._circuit.gather(WEIGHTED, np.arange(start, start + depth, dtype=np.int64))

    def hold(self, error: str, nominal: int) -> None:
        """Add a form's sum of rho^i sigma^j e_ij, shape [1], to what must be zero."""
        circuit = self._circuit
        self._forms += 1
        power = self._powers(2, self._forms)
        factor = circuit.gather(power, np.asarray([self._forms - 1], dtype=np.int64))
        term = circuit.multiply(error, factor, 1)
        if not self._total:
            self._total, self._nominal = term, nominal
            return
        top = max(nominal, self._nominal)
        self._total = circuit.add(
            circuit.raised(self._total, self._nominal, top), circuit.raised(term, nominal, top), 1
        )
        self._nominal = top

    def inputs(self) -> list[tuple[str, int]]:
        """Inputs besides the prover's own, and their lengths."""
        # Products of activations alone have no weights.
        weighted = [(WEIGHTED, sum(self.depths))] if self.depths else []
        return [*weighted, (CHALLENGES, COUNT)]

    def end(self, nominal: int) -> None:
        """Emit the last output, (rho, sigma, tau, t, E, V).

        Args:
            nominal: Its nominal scale: that of the circuit's table.
        """
        circuit, depth = self._circuit, sum(self.depths)
        if depth:
            powers = self._powers(3, depth)
            value = circuit.product("k,k->", powers, WEIGHTED, outputs=1, length=depth)
            value = circuit.reshape(value, [1])
        else:
            value = circuit.dynamic(0)
        parts = [self._challenge(which) for which in range(COUNT)]
        parts = [circuit.raised(part, 0, nominal) for part in parts]
        parts.append(circuit.raised(self._total, self._nominal, nominal))
        parts.append(circuit.raised(value, 0, nominal))
        circuit.named("Concat", parts, LEAF, axis=0)

    def mark(self) -> Mark:
        """Where it stands, for `rewind`."""
        own = {name: copy(value) for name, value in vars(self).items() if name != "_circuit"}
        return own | {"_parts": {which: list(parts) for which, parts in self._parts.items()}}

    def rewind(self, mark: Mark) -> None:
        """Forget what was held since a mark; a mark is good for one time."""
        vars(self).update(mark)

    def _challenge(self, which: int) -> str:
        return self._circuit.gather(CHALLENGES, np.asarray([which], dtype=np.int64))

    def _powers(self, which: int, count: int) -> str:
        """Powers of a challenge from the first on, by doubling."""
        circuit = self._circuit
        parts = self._parts.setdefault(which, [self._challenge(which)])
        have = self._have.setdefault(which, 1)
        while have < count:
            known, more = circuit.concat(parts), min(have, count - have)
            top = circuit.gather(known, np.asarray([have - 1], dtype=np.int64))
            low = circuit.gather(known, np.arange(more, dtype=np.int64))
            parts.append(circuit.multiply(low, top, more))
            have += more
        self._have[which] = have
        return circuit.gather(circuit.concat(parts), np.arange(count, dtype=np.int64))

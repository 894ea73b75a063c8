"""Counts tamper cases: every one tried must be refused, with the code it is meant to have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from zkml_ray.errors import VerificationError


class Tally:
    """How many cases were tried, and how many refused, by code."""

    def __init__(self) -> None:
        self.tried = 0
        self.refused: Counter[str] = Counter()

    def refused_with(self, verify: Callable[[], object], *codes: str, case: str) -> None:
        """Run a case that must be refused.

        Args:
            verify: Verifies what was tampered with.
            codes: The codes that fit; any other refusal fails the test, as does none.
            case: What was done, for the message.
        """
        self.tried += 1
        try:
            verify()
        except VerificationError as error:
            if error.code not in codes:
                raise AssertionError(
                    f"{case}: refused as {error.code} ({error}), expected {' or '.join(codes)}"
                ) from error
            self.refused[error.code] += 1
            return
        raise AssertionError(f"{case}: was not refused")

    def summary(self) -> str:
        """One line and the codes."""
        total = sum(self.refused.values())
        codes = ", ".join(f"{code} {count}" for code, count in sorted(self.refused.items()))
        return f"tamper cases: {self.tried} tried, {total} refused ({codes})"


TALLY = Tally()

NOTES: list[str] = []
"""Lines for the end of a session: what searches came to."""

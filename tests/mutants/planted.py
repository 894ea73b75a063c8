"""All mutants of the gate."""

from __future__ import annotations

from typing import Final

from tests.mutants import challenged, chosen, committed, hinted, trusting, verifying

MUTANTS: Final = (
    *hinted.MUTANTS,
    *committed.MUTANTS,
    *trusting.MUTANTS,
    *verifying.MUTANTS,
    *chosen.MUTANTS,
    *challenged.MUTANTS,
)

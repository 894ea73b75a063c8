"""All mutants of the gate."""

from __future__ import annotations

from typing import Final

from tests.mutants import committed, hinted, verifying

MUTANTS: Final = (*hinted.MUTANTS, *committed.MUTANTS, *verifying.MUTANTS)

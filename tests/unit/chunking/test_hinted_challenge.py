"""Products checked by a challenge: the same integers, and an identity of all that is rounded."""

from __future__ import annotations

import pytest

from tests.unit.chunking import test_hinted_functions as functions
from tests.unit.chunking import test_hinted_operators as operators
from tests.unit.chunking.hinted_circuit import (
    NUMBERS,
    checked,
    hinted_chunk,
)
from zkml_ray.chunking.hinted import settle

CASES = {
    **{name: (case, NUMBERS) for name, case in operators.CASES.items()},
    **{name: (case, functions.ALL_NUMBERS["scale 7"]) for name, case in functions.CASES.items()},
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every form is held by the identity, cheaper or not."""
    monkeypatch.setattr(settle, "is_cheaper", lambda *_: True)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", sorted(CASES))
def test_circuit_fed_by_the_recipe_gives_the_loops_integers(name: str) -> None:
    case, numbers = CASES[name]
    checked(hinted_chunk(case.proto(), numbers, challenge=True), operators.inputs(case, numbers))

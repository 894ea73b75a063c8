"""Every planted fault is noticed: a sample whenever tests run, all of them in the slow tier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants.gate import NOTES, Copy, Mutant, tried, unapplied
from tests.mutants.planted import MUTANTS

QUICK = [mutant for mutant in MUTANTS if mutant.quick]
HARMLESS = Mutant(
    "commitments/packing.py",
    'raise FieldRangeError(\n            f"cannot pack',
    'raise FieldRangeError(\n            f"Cannot pack',
    ("tests/unit/commitments/test_packing.py::test_pack_is_the_sum_of_shifted_elements",),
)


def test_every_mutant_applies_to_the_code_as_it_is() -> None:
    assert len(MUTANTS) >= 60
    assert len({(m.file, m.text, m.instead) for m in MUTANTS}) == len(MUTANTS)
    assert unapplied(MUTANTS) == []


def all_killed(mutants: Sequence[Mutant], folder: Path) -> None:
    results = list(tried(mutants, folder))
    spared = [
        (r.outcome, r.mutant.title, r.output[-500:]) for r in results if r.outcome != "killed"
    ]
    NOTES.append(f"{len(results) - len(spared)} of {len(results)} mutants killed")
    assert not spared


def test_sample_of_mutants_is_killed(tmp_path: Path) -> None:
    assert len(QUICK) >= 6
    all_killed(QUICK, tmp_path)


@pytest.mark.slow
@pytest.mark.ray
def test_all_mutants_are_killed(tmp_path: Path) -> None:
    all_killed(MUTANTS, tmp_path)


def test_gate_tells_what_lives_what_breaks_and_what_no_longer_applies(tmp_path: Path) -> None:
    """A gate that called these killed would prove nothing."""
    copy = Copy(tmp_path)
    try:
        assert copy.plant(HARMLESS).outcome == "lived"
        syntax = Mutant(HARMLESS.file, "class PackingSpec:", "class PackingSpec", HARMLESS.tests)
        assert copy.plant(syntax).outcome == "broken"
        gone = Mutant(HARMLESS.file, "what is not there", "", HARMLESS.tests)
        twice = Mutant(HARMLESS.file, "FieldRangeError", "ValueError", HARMLESS.tests)
        assert {copy.plant(m).outcome for m in (gone, twice)} == {"does not apply"}
        assert set(unapplied([gone, twice, HARMLESS])) == {gone.title, twice.title}
        unknown = Mutant(HARMLESS.file, HARMLESS.text, HARMLESS.instead, ("tests/nothing.py",))
        assert copy.plant(unknown).outcome == "broken"
        start, endless = "    bound = spec.element_bound\n    for", "    while True: pass\n    for"
        forever = Mutant(HARMLESS.file, start, endless, HARMLESS.tests)
        assert copy.plant(forever, limit_s=3).outcome == "hung"
        # Every file is as it was.
        code, output = copy.run(HARMLESS.tests)
        assert code == 0, output
    finally:
        copy.close()

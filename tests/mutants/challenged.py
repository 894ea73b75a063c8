"""Mutants of products that a challenge checks, and of rows looked up outside of circuits."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_FORGED: Final = "tests/soundness/test_challenge.py"
_TRANSCRIPT: Final = "tests/unit/commitments/test_challenge.py"
_FIXED: Final = f"{_TRANSCRIPT}::test_whatever_is_fixed_first_changes_every_challenge"
_EMITTED: Final = "tests/unit/chunking/test_hinted_challenge.py"
_POWERS: Final = (
    f"{_EMITTED}::test_every_equation_has_a_power_of_its_own_and_every_hint_is_in_one"
    "[block with a shortcut]"
)
_SAME: Final = f"{_EMITTED}::test_circuit_fed_by_the_recipe_gives_the_loops_integers"

MUTANTS: Final = (
    Mutant(
        "zkml_ray/circuits/challenge.py",
        "if shown != leaf_hash(found, value):",
        "if False:",
        (_FORGED,),
    ),
    Mutant(
        "zkml_ray/circuits/challenge.py",
        "circuit = bytes.fromhex(chunk.digest()) + bytes.fromhex(vk_sha256)",
        "circuit = bytes.fromhex(chunk.digest())",
        (_FORGED,),
    ),
    Mutant(
        "zkml_ray/circuits/challenge.py",
        "return (length + columns) // rows + 1",
        "return columns",
        ("tests/unit/test_challenge_columns.py",),
    ),
    Mutant(
        "commitments/challenge.py",
        "seed = _digest(self.circuit, shown, points)",
        "seed = _digest(self.circuit, shown)",
        (_FIXED,),
        quick=True,
    ),
    Mutant(
        "commitments/challenge.py",
        "seed = _digest(self.circuit, shown, points)",
        "seed = _digest(self.circuit, points)",
        (_FIXED,),
    ),
    Mutant(
        "commitments/challenge.py",
        "seed = _digest(self.circuit, shown, points)",
        "seed = _digest(shown, points)",
        (_FIXED,),
    ),
    Mutant(
        "commitments/challenge.py",
        'return _element(_digest(seed, points), b"t")',
        'return _element(_digest(seed), b"t")',
        (f"{_TRANSCRIPT}::test_the_second_points_change_the_last_challenge_alone",),
    ),
    Mutant(
        "commitments/challenge.py",
        'found.update(struct.pack("<Q", len(part)))',
        "pass",
        (f"{_TRANSCRIPT}::test_no_byte_can_move_from_one_part_to_the_next",),
    ),
    Mutant(
        "commitments/challenge.py",
        "bits = _EXACT_BITS - WEIGHT_BITS - channels.bit_length()",
        "bits = _EXACT_BITS - WEIGHT_BITS",
        (f"{_TRANSCRIPT}::test_weights_are_combined_exactly",),
    ),
    Mutant(
        "commitments/challenge.py",
        "if start != len(data):",
        "if False:",
        (f"{_TRANSCRIPT}::test_any_other_bytes_are_no_weights_file",),
    ),
    Mutant(
        "chunking/hinted/challenge.py",
        "np.asarray([self._forms - 1], dtype=np.int64)",
        "np.asarray([0], dtype=np.int64)",
        (_POWERS,),
    ),
    Mutant(
        "chunking/hinted/challenge.py",
        "return self._powers(1, count)",
        "return self._powers(0, count)",
        (_POWERS,),
    ),
    Mutant(
        "chunking/hinted/weighed.py",
        "identity.weighted(depth), outputs=1",
        "identity.weighted(depth - 1), outputs=1",
        (_SAME,),
    ),
    Mutant(
        "zkml_ray/verifying/places.py",
        "if not stands or lookup.input in crossing:",
        "if not stands:",
        (
            "tests/soundness/test_places.py::"
            "test_input_of_places_is_called_like_no_tensor_of_the_circuits",
        ),
    ),
)

"""Mutants of commitments: packing, trees, openings, field elements, leaves."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_UNIT: Final = "tests/unit/commitments"


def _at(name: str, text: str, instead: str, *tests: str, quick: bool = False) -> Mutant:
    ids = tuple(f"{_UNIT}/{test}" for test in tests)
    return Mutant(f"commitments/{name}.py", text, instead, ids, quick=quick)


_PACKING: Final = "test_packing.py"
_SPEC: Final = f"{_PACKING}::test_spec_that_loses_information_is_refused"
_MERKLE: Final = "test_merkle.py"
_OPENING: Final = "test_opening.py"
_LEAVES: Final = "test_leaves.py"
_FIELD: Final = "test_field.py"

MUTANTS: Final = (
    _at(
        "packing",
        "min(self.stride_bits - 1, PACKED_BITS)",
        "min(self.stride_bits, PACKED_BITS)",
        _SPEC,
        quick=True,
    ),
    _at(
        "packing",
        "if self.pack * self.stride_bits > PACKED_BITS:",
        "if self.inner * self.stride_bits > PACKED_BITS:",
        _SPEC,
    ),
    _at("packing", "if largest > _CONSTANT_BITS:", "if largest > 2 * _CONSTANT_BITS:", _SPEC),
    _at(
        "packing",
        "max(self.inner - 1, self.inner * (self.outer - 1))",
        "self.inner * (self.outer - 1)",
        _SPEC,
    ),
    _at(
        "packing",
        "single.element_bits + _GUARD_BITS",
        "single.element_bits + 1",
        f"{_PACKING}::test_for_decomposition_of_28_bits_packs_eight_at_stride_30",
    ),
    _at(
        "packing",
        "return int(self.decomp_base**self.decomp_legs) - 1",
        "return int(self.decomp_base**self.decomp_legs)",
        _PACKING,
    ),
    _at(
        "packing",
        "return (1 << (self.stride_bits - 1)) - 1",
        "return 1 << self.stride_bits",
        f"{_PACKING}::test_injective_bound_is_where_two_elements_first_add_up_to_others",
    ),
    _at(
        "packing",
        "int(element) << (spec.stride_bits * position)",
        "int(element) << (spec.element_bits * position)",
        f"{_PACKING}::test_pack_is_the_sum_of_shifted_elements",
    ),
    _at(
        "packing",
        "        if not -bound <= element <= bound:\n",
        "        if not -bound <= element <= bound + 1:\n",
        f"{_PACKING}::test_pack_element_beyond_bound_is_refused",
    ),
    _at(
        "packing",
        "            if not -bound <= digit <= bound:\n",
        "            if not -half <= digit <= half:\n",
        f"{_PACKING}::test_unpack_digit_beyond_bound_is_refused",
    ),
    _at(
        "packing",
        "        if rest:\n",
        "        if rest > full:\n",
        f"{_PACKING}::test_unpack_of_more_than_was_packed_is_refused",
        f"{_PACKING}::test_unpack_of_any_field_element_is_refused_or_exact",
    ),
    _at(
        "merkle",
        "if abs(to_signed(element)) >= 1 << PACKED_BITS:",
        "if abs(to_signed(element)) >= 0:",
        f"{_MERKLE}::test_tag_of_any_string_is_beyond_what_leaves_hold",
    ),
    _at(
        "merkle",
        "    if not 0 <= index < leaf_count:\n",
        "    if not 0 <= index <= leaf_count:\n",
        f"{_MERKLE}::test_root_from_path_of_no_leaf_is_refused",
    ),
    _at(
        "merkle",
        "    if len(siblings) != len(sides):\n",
        "    if len(siblings) < len(sides):\n",
        f"{_MERKLE}::test_root_from_path_with_wrong_number_of_siblings_is_refused",
    ),
    _at(
        "merkle",
        "tuple(paired) + level[2 * len(paired) :]",
        "tuple(paired) + 2 * level[2 * len(paired) :]",
        f"{_MERKLE}::test_root_of_five_leaves_promotes_the_fifth",
    ),
    _at(
        "merkle",
        "return hash_elements([TAG_NODE, left, right])",
        "return hash_elements([left, right])",
        f"{_MERKLE}::test_root_of_five_leaves_promotes_the_fifth",
    ),
    _at(
        "merkle",
        "hash_elements([TAG_BOUNDARY, root, metadata.digest()])",
        "hash_elements([TAG_BOUNDARY, root])",
        f"{_MERKLE}::test_commitment_hashes_tag_root_and_digest",
        quick=True,
    ),
    _at(
        "merkle",
        '                    "scale": self.scale,\n',
        "",
        f"{_MERKLE}::test_json_of_metadata_holds_every_field",
    ),
    _at(
        "merkle",
        "if math.prod(self.shape) != self.layout.element_count:",
        "if math.prod(self.shape) < self.layout.element_count:",
        f"{_MERKLE}::test_metadata_that_does_not_fit_is_refused",
    ),
    _at(
        "merkle",
        "_node(sibling, node) if is_left else _node(node, sibling)",
        "_node(sibling, node)",
        f"{_MERKLE}::test_path_of_every_leaf_leads_to_the_root",
    ),
    _at(
        "opening",
        "    for subject, expected, got in _claims(opening, expected_metadata):\n"
        "        _require_equal(subject, expected, got)\n",
        "",
        f"{_OPENING}::test_verify_after_any_change_is_refused",
    ),
    _at(
        "opening",
        '    _require_equal("commitment", encode(expected_commitment), opening.commitment)\n',
        "",
        f"{_OPENING}::test_verify_after_any_change_is_refused",
    ),
    _at(
        "opening",
        "        encode(boundary_commitment(root, expected_metadata)),\n",
        "        opening.commitment,\n",
        f"{_OPENING}::test_verify_of_forger_who_repeats_the_expected_commitment_is_refused",
        f"{_OPENING}::test_verify_after_any_change_is_refused",
    ),
    _at(
        "opening",
        '    yield "scale", metadata.scale, opening.scale\n',
        "",
        f"{_OPENING}::test_verify_after_any_change_is_refused",
    ),
    _at(
        "opening",
        "    if expected != got:\n",
        "    if expected != got and not got:\n",
        f"{_OPENING}::test_verify_after_any_change_is_refused",
    ),
    _at(
        "opening",
        "if len(data) > MAX_OPENING_BYTES:",
        "if len(data) > 1000 * MAX_OPENING_BYTES:",
        f"{_OPENING}::test_parse_of_too_many_bytes_is_refused_unread",
    ),
    _at(
        "opening",
        "start_index=opening.leaf_index * layout.leaf_size,",
        "start_index=opening.leaf_index,",
        f"{_OPENING}::test_open_then_verify_every_index_shows_the_values",
    ),
    _at(
        "leaves",
        "return -(-SALT_ENTROPY_BITS // salt_bits(packing))",
        "return SALT_ENTROPY_BITS // salt_bits(packing)",
        f"{_LEAVES}::test_salts_carry_128_bits_within_the_bound",
    ),
    _at(
        "leaves",
        "self.slots < self.leaf_size + self.salts_per_leaf:",
        "self.slots < self.leaf_size:",
        f"{_LEAVES}::test_layout_of_inconsistent_sizes_is_refused",
    ),
    _at(
        "field",
        "    if element >= MODULUS:\n",
        "    if element > MODULUS:\n",
        f"{_FIELD}::test_decode_not_below_modulus_is_refused",
    ),
    _at(
        "field",
        "    if not -_HALF <= value < MODULUS:\n",
        "    if not -MODULUS <= value < MODULUS:\n",
        f"{_FIELD}::test_encode_outside_range_is_refused",
    ),
)

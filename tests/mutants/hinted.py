"""Mutants of hinted circuits: bounds, strides, digits, what is checked, and blinders."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_UNIT: Final = "tests/unit/chunking"
_BOUNDS: Final = f"{_UNIT}/test_hinted_bounds.py"
_STRIDES: Final = f"{_BOUNDS}::test_no_equation_reaches_its_stride_and_no_packed_sum_wraps"
_WIRES: Final = f"{_BOUNDS}::test_no_digits_take_a_wire_or_a_sum_of_products_out_of_its_bounds"
_NUMBERS: Final = f"{_UNIT}/test_hinted_numbers.py"
_BLINDING: Final = f"{_UNIT}/test_hinted_blinding.py"
_OPERATORS: Final = f"{_UNIT}/test_hinted_operators.py"
_FORGED: Final = "tests/soundness/test_hinted.py"
_FORGED_FUNCTIONS: Final = "tests/soundness/test_hinted_functions.py"


def _at(name: str, text: str, instead: str, *tests: str, quick: bool = False) -> Mutant:
    return Mutant(f"chunking/hinted/{name}.py", text, instead, tests, quick=quick)


_REACH: Final = "reach += divisor.value * "

STRIDES: Final = (
    _at("settle", " + divisor.remainder_bound(numbers)\n", "\n", _STRIDES),
    _at("settle", f"{_REACH}numbers.bound_of(rounding.result_digits)", "reach += 0", _STRIDES),
    _at("settle", f"{_REACH}numbers.bound_of(rounding.below_digits)", "reach += 0", _STRIDES),
    _at("settle", f"{_REACH}(numbers.value_bound if moved else 0)", "reach += 0", _STRIDES),
    _at("settle", "reach = quantised.magnitude +", "reach =", _STRIDES),
    _at("settle", "stride_bits(reach), only", "stride_bits(reach) - 1, only", _STRIDES),
    _at("settle", "packable(reach), stride", "packable(reach) + 1, stride", _STRIDES),
    _at("numbers", "return magnitude.bit_length()", "return magnitude.bit_length() - 1", _NUMBERS),
    _at(
        "numbers",
        "return PACKED_BITS // stride_bits(magnitude)",
        "return PACKED_BITS // stride_bits(magnitude) + 1",
        f"{_NUMBERS}::test_packed_elements_fit_the_field",
        quick=True,
    ),
    _at("layout", "self.width = -(-packed // blocks)", "self.width = width + 1", _STRIDES),
    _at(
        "layout",
        "padded = np.full((batch, depth, b * p), -1, dtype=np.int64)",
        "padded = np.full((batch, depth, b * p), 0, dtype=np.int64)",
        f"{_BOUNDS}::test_channels_that_a_product_lacks_are_nothing",
    ),
)

BOUNDS: Final = (
    _at("rounding", "self.magnitude = int(sums.max()) + int", "self.magnitude = int", _STRIDES),
    _at("rounding", " + int(np.abs(self.constant).max())", "", _STRIDES),
    _at("rounding", "sums += depth * abs(factor)", "sums += abs(factor)", _STRIDES),
    _at(
        "rounding",
        "* pair.left.magnitude * pair.right.magnitude",
        "* pair.left.magnitude",
        _STRIDES,
    ),
    _at(
        "rounding",
        "np.abs(weights).sum(axis=0).astype(object) * dense.wire.magnitude",
        "np.abs(weights.sum(axis=0)).astype(object) * dense.wire.magnitude",
        _STRIDES,
    ),
    _at(
        "rounding",
        "np.abs(weights).sum(axis=1).astype(object) * local.wire.magnitude",
        "np.abs(weights).max(axis=1).astype(object) * local.wire.magnitude",
        _STRIDES,
    ),
    _at(
        "rounding",
        "return sum(numbers.digit_bound << (self.step * place) for place in range(self.digits))",
        "return numbers.digit_bound",
        _STRIDES,
    ),
    _at(
        "rounding",
        "fits = numbers.digit_bound < 2 * value <=",
        "fits = numbers.digit_bound < 4 * value and 2 * value <=",
        f"{_BOUNDS}::test_averages_of_half_a_table_have_no_remainder_of_two_quotients",
    ),
    _at(
        "numbers",
        "self.overlap_bits > MAX_OVERLAP_BITS or",
        "self.overlap_bits > MAX_OVERLAP_BITS + 1 or",
        f"{_NUMBERS}::test_range_that_two_digits_do_not_reach_is_refused_with_the_rows",
    ),
    _at("numbers", "return (1 << self.logrows) - 1\n", "return self.divisor - 1\n", _STRIDES),
    _at(
        "numbers",
        "sum(self.digit_bound << (self.overlap_bits * place) for place in range(digits))",
        "self.digit_bound << (self.overlap_bits * max(digits - 1, 0)) if digits else 0",
        _STRIDES,
    ),
    _at("settle", "low=-rounding.offset,", "low=0,", _WIRES),
    _at("settle", "high=bound - rounding.offset,", "high=numbers.digit_bound,", _WIRES),
    _at(
        "settle",
        "bound = self._numbers.bound_of(rounding",
        "bound = rounding.offset + self._numbers.digit_bound * 0 + min(1, rounding",
        _WIRES,
    ),
    _at("settle", "count * largest ** len(factors))", "largest ** len(factors))", _WIRES),
    _at("settle", "count * largest ** len(factors))", "count * largest)", _WIRES),
    _at(
        "settle",
        "self._rounding.result_digits, self._rounding.below_digits\n        )",
        "1, 1\n        )",
        _WIRES,
    ),
    _at(
        "lower",
        "wire = self.wire(tensor, size, -numbers.offset, numbers.value_bound - numbers.offset)",
        "wire = self.wire(tensor, size, -numbers.offset, numbers.digit_bound - numbers.offset)",
        f"{_BOUNDS}::test_what_is_received_is_bounded_by_its_digits",
    ),
    _at(
        "functions",
        "bound = numbers.digit_bound * (one + abs(plus))",
        "bound = numbers.digit_bound * one",
        _WIRES,
    ),
    _at(
        "functions", "high * _fine_bound(lowering),", "high * lowering.numbers.digit_bound,", _WIRES
    ),
    _at(
        "functions",
        "high, unit = _exponential(numbers.digit_bound, bits),",
        "high, unit = _exponential(numbers.digit_bound // 2, bits),",
        _WIRES,
    ),
    _at(
        "functions",
        "bound = 2 * width * view.wire.magnitude",
        "bound = 2 * view.wire.magnitude",
        _WIRES,
    ),
    _at("functions", "reach = bound * _fine_bound(lowering)", "reach = bound", _WIRES),
    _at(
        "functions",
        "return lowering.numbers.digit_bound * (1 + (1 << FINE_OVERLAP))",
        "return lowering.numbers.digit_bound",
        _WIRES,
    ),
)

CHECKS: Final = (
    _at(
        "settle",
        "circuit.check_digits(checks.left_of(sums), layout.units, quantised.nominal)",
        "checks.left_of(sums)",
        f"{_BOUNDS}::test_any_hint_one_more_or_less_is_refused_or_changes_nothing",
    ),
    _at(
        "settle",
        "if rounding.below_digits:\n",
        "if rounding.below_digits and pending.windows is not None:\n",
        f"{_FORGED}::test_wrong_sign_of_a_relu_is_refused",
    ),
    _at(
        "settle",
        "hold_products(with_result=pending.relu or moved)",
        "hold_products(with_result=moved)",
        f"{_OPERATORS}::test_circuit_fed_by_the_recipe_gives_the_loops_integers",
    ),
    _at(
        "settle",
        "hold_products(with_result=pending.relu or moved)",
        "hold_products(with_result=pending.relu)",
        _FORGED_FUNCTIONS,
    ),
    _at(
        "settle",
        'circuit.product("i,i->", left, right, outputs=1, length=count)',
        'circuit.product("i,j->", left, circuit.subtract(right, right, count), outputs=1, '
        "length=count)",
        f"{_FORGED}::test_wrong_sign_of_a_relu_is_refused",
    ),
    _at(
        "circuit",
        "self._product_bound.bit_length() > PACKED_BITS:",
        "bound.bit_length() > PACKED_BITS:",
        f"{_BOUNDS}::test_sums_of_products_that_could_wrap_are_refused",
        quick=True,
    ),
    _at(
        "circuit",
        "            self.check_digits(far, 1)\n",
        "",
        f"{_BOUNDS}::test_sum_of_products_that_is_not_zero_is_refused",
    ),
    _at(
        "circuit",
        "            self.check_digits(total, 1)\n",
        "",
        f"{_BOUNDS}::test_sum_of_products_that_is_not_zero_is_refused",
    ),
    _at(
        "circuit",
        "self._derived.append((tensor, count, nominal))",
        "self._derived.append((tensor, count, nominal)) if not self._derived else None",
        f"{_FORGED}::test_quotient_off_by_one_is_refused",
        f"{_FORGED}::test_wrong_sign_of_a_relu_is_refused",
        f"{_FORGED}::test_incoming_values_that_pack_to_the_same_leaf_are_refused",
    ),
    _at(
        "lower",
        "        circuit.check_digits(shifted, size)\n",
        "",
        f"{_FORGED}::test_incoming_values_that_pack_to_the_same_leaf_are_refused",
    ),
    _at(
        "functions",
        "for change in (1, -1):\n        near = circuit.add(share",
        "for change in (1,):\n        near = circuit.add(share",
        _FORGED_FUNCTIONS,
    ),
    _at(
        "functions",
        "for change in (1, -1):\n        near = circuit.add(root",
        "for change in (-1,):\n        near = circuit.add(root",
        _FORGED_FUNCTIONS,
    ),
    _at(
        "functions",
        "    circuit.check_digits(tensor, count, nominal)\n",
        "",
        _FORGED_FUNCTIONS,
    ),
    _at(
        "functions",
        "if most.bit_length() > _NO_MORE_BITS:",
        "if most.bit_length() > 3 * _NO_MORE_BITS:",
        f"{_BOUNDS}::test_differences_of_too_many_digits_are_refused",
    ),
    _at(
        "functions",
        "return -(-most.bit_length() // (lowering.numbers.logrows - 1))",
        "return -(-most.bit_length() // (lowering.numbers.logrows - 1)) - 1",
        f"{_BOUNDS}::test_no_difference_wraps_whatever_its_digits",
    ),
    _at(
        "functions",
        "if 1 << numbers.logrows != TABLE_TOP << bits:",
        "if 1 << numbers.logrows < TABLE_TOP << bits:",
        f"{_UNIT}/test_hinted_functions.py::"
        "test_softmax_in_a_circuit_of_other_rows_than_its_table_wants_is_refused",
    ),
    _at(
        "forms",
        "if len(np.unique(kept)) != kept.size:",
        "if len(np.unique(kept)) > kept.size:",
        f"{_OPERATORS}::test_what_has_no_hinted_form_is_refused",
    ),
    _at(
        "forms",
        "if (channel != channel[:, :1]).any():",
        "if (channel != channel[:, :1]).all():",
        f"{_BOUNDS}::test_window_over_channels_is_refused_among_others_that_are_not",
    ),
    _at(
        "sums",
        "total = _plus(circuit, total, sums, nominal, form, layout)",
        'total = _plus(circuit, "", sums, nominal, form, layout)',
        f"{_UNIT}/test_hinted_functions.py::test_circuit_fed_by_the_recipe_gives_the_loops_integers",
    ),
)

BLINDING: Final = (
    _at("blinding", "BLINDERS: Final = 64", "BLINDERS: Final = 8", _BLINDING),
    _at(
        "blinding",
        "run = BLINDERS * columns",
        "run = BLINDERS",
        f"{_BLINDING}::test_every_column_that_holds_a_value_holds_blinders",
    ),
    _at(
        "blinding",
        "* columns - 2 * run",
        "* columns",
        f"{_BLINDING}::test_every_column_that_holds_a_value_holds_blinders",
    ),
    _at("blinding", "secrets.randbelow(digits)", "0", f"{_BLINDING}::test_blinders_are_fresh"),
)

MUTANTS: Final = (*STRIDES, *BOUNDS, *CHECKS, *BLINDING)

"""Mutants of hinted circuits: bounds, strides, digits, what is checked, and blinders."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_UNIT: Final = "tests/unit/chunking"
_BOUNDS: Final = f"{_UNIT}/test_hinted_bounds.py"
_STRIDES: Final = f"{_BOUNDS}::test_no_equation_reaches_its_stride_and_no_packed_sum_wraps"
_WIRES: Final = f"{_BOUNDS}::test_no_digits_take_a_wire_or_a_sum_of_products_out_of_its_bounds"
_DIFFERENCES: Final = f"{_BOUNDS}::test_no_difference_wraps_whatever_its_digits"
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
    _at(
        "rounding",
        "CONSTANT_SHARE: Final = 128",
        "CONSTANT_SHARE: Final = 1e-6",
        f"{_UNIT}/test_hinted_slack.py::test_constants_are_what_is_published_at_every_scale_range_and_size",
    ),
    _at("rounding", "self.magnitude = int(sums.max()) + int", "self.magnitude = int", _STRIDES),
    _at("rounding", " + int(np.abs(self.constant).max())", "", _STRIDES),
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
        "forms",
        "if len(np.unique(kept)) != kept.size:",
        "if len(np.unique(kept)) > kept.size:",
        f"{_BOUNDS}::test_windows_that_overlap_are_not_pooled_as_they_stand",
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

NORMALISED: Final = (
    _at("rounding", "sums += abs(factor) * pair.most", "sums += pair.most", _STRIDES),
    _at("forms", "return depth * self.left", "return self.left", _STRIDES),
    _at("forms", "self.right.magnitude * scaled", "self.right.magnitude", _STRIDES),
    _at("forms", "self.left.magnitude * self.right.magnitude *", "self.left.magnitude *", _STRIDES),
    _at(
        "gelu",
        "bound = numbers.digit_bound * (one + abs(plus))",
        "bound = numbers.digit_bound * one",
        _WIRES,
    ),
    _at(
        "softmax",
        "for v in (numbers.digit_bound, numbers.divisor - 1)",
        "for v in (numbers.divisor // 2, numbers.divisor - 1)",
        _WIRES,
    ),
    _at("softmax", "weights.wire.high * reciprocals.most,", "weights.wire.high,", _WIRES),
    _at(
        "softmax",
        "most=(digits.bound(numbers) + 1) * keys * high + target,",
        "most=(digits.bound(numbers) + 1) * high + target,",
        _DIFFERENCES,
    ),
    _at(
        "softmax",
        "for change in (1, -1):",
        "for change in (1,):",
        f"{_FORGED_FUNCTIONS}::test_next_reciprocal_is_accepted_and_the_one_after_is_not",
        f"{_FORGED_FUNCTIONS}::test_softmax_whose_shares_add_up_to_something_else_is_refused",
    ),
    _at(
        "softmax",
        "    pin_rows(lowering, moved.below, rows.places)\n",
        "",
        f"{_FORGED_FUNCTIONS}::test_row_whose_largest_score_stands_below_the_tables_top_is_refused",
    ),
    _at(
        "settle",
        "self.taken.reshape(a, b * p), axis=0",
        "np.ones((a, b * p), dtype=bool), axis=0",
        f"{_UNIT}/test_hinted_masks.py::test_dropped_keys_have_no_share_however_large_their_scores",
    ),
    _at(
        "softmax",
        "once = np.arange(self.longest) < self.kept.sum(axis=1)[:, None]",
        "once = np.ones((self.count, self.longest))",
        f"{_UNIT}/test_hinted_masks.py::test_a_row_with_one_key_has_all_of_it",
    ),
    _at(
        "pins",
        "found: Ints = places[:, within]",
        "found: Ints = np.zeros_like(places)[:, within]",
        f"{_FORGED_FUNCTIONS}::test_row_whose_largest_score_stands_below_the_tables_top_is_refused",
    ),
    _at(
        "softmax",
        "if not least <= numbers.logrows <=",
        "if not least - 1 <= numbers.logrows <=",
        f"{_UNIT}/test_hinted_functions.py::test_softmax_in_a_circuit_of_other_rows_than_its_table_wants_is_refused",
    ),
    _at(
        "layer_norm",
        "bound = 2 * width * view.wire.magnitude",
        "bound = 2 * view.wire.magnitude",
        _WIRES,
    ),
    _at("layer_norm", "reach = bound * digits.bound(numbers)", "reach = bound", _WIRES),
    _at(
        "layer_norm",
        "most = factor * width * (2 * width",
        "most = factor * (2 * width",
        _DIFFERENCES,
    ),
    _at(
        "layer_norm",
        "most = (digits.bound(numbers) + 1) ** 2",
        "most = (digits.bound(numbers) + 1)",
        _DIFFERENCES,
    ),
    _at(
        "layer_norm",
        "for change in (1, -1):",
        "for change in (-1,):",
        f"{_FORGED_FUNCTIONS}::test_next_root_is_accepted_and_the_one_after_is_not",
        f"{_FORGED_FUNCTIONS}::test_negative_root_is_refused",
    ),
    _at(
        "digits",
        "return numbers.digit_bound * sum_of_weights(self.count, self.step)",
        "return numbers.divisor * sum_of_weights(self.count, self.step)",
        _DIFFERENCES,
    ),
    _at(
        "fine",
        "(most + reach).bit_length() > PACKED_BITS",
        "most.bit_length() > PACKED_BITS",
        f"{_BOUNDS}::test_differences_that_could_wrap_are_refused",
    ),
    _at(
        "fine",
        "return max(1, -(-honest.bit_length() // (numbers.logrows - 1)))",
        "return max(1, honest.bit_length() // (numbers.logrows - 1))",
        _DIFFERENCES,
    ),
    _at(
        "fine",
        "    circuit.check_digits(tensor, count, nominal)\n",
        "",
        f"{_FORGED_FUNCTIONS}::test_next_reciprocal_is_accepted_and_the_one_after_is_not",
        f"{_FORGED_FUNCTIONS}::test_negative_root_is_refused",
    ),
    _at("pins", "largest = numbers.digit_bound**size", "largest = numbers.digit_bound", _WIRES),
    _at("pins", "count * largest)", "largest)", _WIRES),
    _at("pins", "        largest *= numbers.digit_bound\n", "", _WIRES),
    _at(
        "pins",
        "        circuit.check_digits(first, rows)\n",
        "",
        f"{_FORGED_FUNCTIONS}::test_group_of_a_rows_top_is_named_and_no_other",
    ),
)

_UNIQUE: Final = (
    "tests/soundness/test_uniqueness.py::"
    "test_hints_allow_what_the_operator_is_declared_to_give[Tanh-0-one digit]"
)

_UNIT_DECISIONS: Final = f"{_UNIT}/test_hinted_decisions.py"
_SIGN: Final = _UNIQUE.replace("Tanh-0", "Sign-1")
_FLOOR: Final = _UNIQUE.replace("Tanh-0", "Floor-0")

DECISIONS: Final = (
    _at("bits", "circuit.check_digits(circuit.subtract(one, bits, size), size)", "pass", _SIGN),
    _at("bits", "    circuit.check_digits(left, size)\n", "", _SIGN),
    _at("bits", "max(values.high - 1, -values.low, 1)", "1", _UNIT_DECISIONS),
    _at(
        "operators/decisions",
        "    circuit.check_digits(circuit.subtract(circuit.whole([most]), digits, size), size)\n",
        "",
        _WIRES,
    ),
    _at("operators/decisions", "    circuit.check_digits(rest, size)\n", "", _FLOOR),
    _at(
        "operators/decisions",
        "    circuit.check_digits(circuit.subtract(circuit.whole([step - 1]), rest, size), size)\n",
        "",
        _FLOOR,
    ),
)

_QUOTIENT: Final = _UNIQUE.replace("Tanh-0", "Div-1")
_ROOT: Final = _UNIQUE.replace("Tanh-0", "Sqrt-0")
_NEAREST: Final = (
    f"{_UNIT}/test_hinted_quotients.py::"
    "test_quotients_are_the_nearest_of_both_signs_to_the_ends_of_the_range"
)


def _quotients(text: str, instead: str, *tests: str) -> Mutant:
    return _at("operators/quotients", text, instead, *tests)


QUOTIENTS: Final = (
    _quotients(
        "circuit.check_digits(circuit.subtract(one, bits, size), size)", "pass", _DIFFERENCES
    ),
    _quotients(
        "    check_not_negative(lowering, rest, size, most=most, honest=honest)\n    check_not"
        "_negative(lowering, left, size, most=most + honest + 1",
        "    check_not_negative(lowering, left, size, most=most + honest + 1",
        _QUOTIENT,
    ),
    _quotients(
        "    check_not_negative(lowering, left, size, most=most + honest + 1, honest=honest)\n",
        "",
        _QUOTIENT,
    ),
    _quotients(
        "    check_not_negative(lowering, left, size, most=most + 2 * bound, honest=honest)\n",
        "",
        _ROOT,
    ),
    _quotients("honest = 2 * below.wire.magnitude", "honest = 1", _NEAREST),
    _quotients("    most = reach + below", "    most = below", _DIFFERENCES),
)

_EXP: Final = _UNIQUE.replace("Tanh-0", "Exp-0")
_LOG: Final = _UNIQUE.replace("Tanh-0", "Log-0")
_EXPONENTIALS: Final = f"{_UNIT}/test_hinted_exponentials.py"

EXPONENTIALS: Final = (
    _at(
        "operators/exponentials",
        "    for tensor in (rest, left):",
        "    for tensor in (rest,):",
        _LOG,
    ),
    _at(
        "operators/exponentials",
        "    for tensor in (rest, left):",
        "    for tensor in (left,):",
        _LOG,
    ),
    _at("operators/exponentials", " + factor * view.wire.magnitude + 1", "", _DIFFERENCES),
    _at(
        "operators/exponentials",
        "(numbers.scale + 1) * math.log(2)",
        "(numbers.scale - 2) * math.log(2)",
        _EXPONENTIALS,
    ),
    _at(
        "extent",
        "float(high.max(initial=-np.inf))",
        "-float(high.max(initial=-np.inf))",
        _EXPONENTIALS,
    ),
)

TABLES: Final = (
    _at(
        "clamp",
        "return numbers.digit_bound + self.beyond.bound(numbers)",
        "return numbers.digit_bound",
        _STRIDES,
        quick=True,
    ),
    _at(
        "clamp",
        "circuit.check_digits(circuit.subtract(one, bits, count), count)",
        "pass",
        _UNIQUE,
    ),
    _at("clamp", "        circuit.check_digits(left, count)\n", "        pass\n", _WIRES),
    _at("clamp", "count * clamp.beyond.bound(numbers) * numbers", "count * numbers", _WIRES),
    _at("clamp", "    circuit.check_zero(circuit.reshape(total, [1]), bound)\n", "", _UNIQUE),
    _at(
        "clamp",
        "max(most - top, 1)",
        "1",
        f"{_UNIT}/test_hinted_tables.py::test_no_argument_is_too_large",
    ),
    _at("functions", "clamp_top=numbers.divisor - 1", "clamp_top=numbers.divisor // 8", _UNIQUE),
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

MUTANTS: Final = (
    *STRIDES,
    *BOUNDS,
    *CHECKS,
    *NORMALISED,
    *TABLES,
    *DECISIONS,
    *QUOTIENTS,
    *BLINDING,
)

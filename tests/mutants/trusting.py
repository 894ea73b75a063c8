"""Mutants of what plans and trust roots are held to."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_PLAN: Final = "tests/unit/test_verifier_plan.py"
_STEPS: Final = "tests/unit/test_verifier_steps.py"
_EDGES: Final = f"{_PLAN}::test_dropped_or_repeated_edges_are_refused"
_SCALES: Final = f"{_PLAN}::test_scales_of_boundaries_are_the_inputs_or_above"
_LIMITS: Final = f"{_PLAN}::test_arguments_beyond_limits_are_refused"
_PAPER: Final = "tests/unit/test_verifier_graph.py"
_PAPER_HINTED: Final = f"{_PAPER}::test_hinted_circuit_of_other_numbers_is_refused"
_GRAPH: Final = f"{_PAPER}::test_graph_with_one_thing_wrong_is_refused"


def _at(text: str, instead: str, *tests: str, quick: bool = False) -> Mutant:
    return Mutant("zkml_ray/verifying/trust.py", text, instead, tests, quick=quick)


def _floor(text: str, instead: str, test: str) -> Mutant:
    tests = (f"tests/soundness/test_policy.py::{test}",)
    return Mutant("zkml_ray/verifying/policy.py", text, instead, tests)


def _extent(text: str, instead: str, test: str) -> Mutant:
    tests = (f"tests/soundness/test_extent.py::{test}",)
    return Mutant("zkml_ray/verifying/extent.py", text, instead, tests)


_ASKS: Final = "test_plan_that_asks_for_much_is_refused_before_anything_is_made_of_it"
_ROWS: Final = "test_rows_that_no_circuit_of_the_plan_can_hash_are_refused_before_one_is_made"
_STRUCTURE: Final = "test_structure_that_is_not_the_models_is_refused_before_a_circuit_is_made"


MUTANTS: Final = (
    _at(
        "if digest != trust.plan_digest:",
        "if not digest:",
        f"{_STEPS}::test_plan_of_another_digest_is_not_the_trusted_one",
    ),
    _at("if own != sealed.plan.model_sha256:", "if not own:", _PAPER),
    _at(
        "(self.model is None) == (self.plan_digest is None)",
        "self.model is None and self.plan_digest is None",
        _PAPER,
    ),
    _at(
        "if plan.ezkl_version != backend.EZKL_VERSION:",
        "if not plan.ezkl_version:",
        _PAPER,
    ),
    _at(
        "if dimensions != sorted(set(dimensions)):",
        "if dimensions != sorted(dimensions):",
        f"{_PLAN}::test_dimensions_out_of_order_or_repeated_are_refused",
    ),
    _at(
        "if bits > limits.MAX_COMMITTED_BITS:",
        "if bits > 10 * limits.MAX_COMMITTED_BITS:",
        _PAPER,
    ),
    _at(
        "arguments.decomp_base**arguments.decomp_legs - 1 > packing.element_bound:",
        "arguments.decomp_legs > packing.element_bound:",
        _PAPER,
    ),
    _at(
        "bits * (arguments.scale_rebase_multiplier + 1) + ACCUMULATION_BITS",
        "bits * arguments.scale_rebase_multiplier + ACCUMULATION_BITS",
        _LIMITS,
    ),
    _at(
        "if not -limits.MAX_LOOKUP <= low < 0 < high <= limits.MAX_LOOKUP:",
        "if not -limits.MAX_LOOKUP <= low < high <= limits.MAX_LOOKUP:",
        _LIMITS,
    ),
    _at(
        "        if arguments.range_bits:\n".replace("        ", "    "),
        "    if arguments.range_bits > 20:\n",
        _PAPER,
    ),
    _at(
        "if plan.commitment.salts_apart and not plan.commitment.salted:",
        "if plan.commitment.salts_apart and plan.commitment.max_slots < 0:",
        _PAPER,
    ),
    _at(
        "    if arguments.lookup_range != table:\n",
        "    if arguments.lookup_range > table:\n",
        _PAPER_HINTED,
        quick=True,
    ),
    _at(
        "    if arguments.input_scale != plan.input_scale:\n"
        '        raise _argument(f"{chunk.id} input_scale"',
        "    if arguments.input_scale > plan.input_scale:\n"
        '        raise _argument(f"{chunk.id} input_scale"',
        _PAPER_HINTED,
    ),
    _at(
        "if numbers.value_bound > packing.injective_bound:",
        "if numbers.value_bound > 8 * packing.injective_bound:",
        f"{_PAPER}::test_hinted_circuit_whose_values_overlap_when_packed_is_refused",
    ),
    _at(
        "if plan.commitment.salted and not plan.commitment.salts_apart:",
        "if plan.commitment.salted and plan.commitment.max_slots < 0:",
        f"{_PLAN}::test_salts_beside_values_are_refused_with_hinted_circuits",
    ),
    _at(
        "    if derived != boundary.layout:\n",
        "    if derived.element_count != boundary.layout.element_count:\n",
        _PAPER,
    ),
    _at(
        "if list(position) != [f",
        "if sorted(position) != [f",
        f"{_PAPER}::test_refusal_says_what_is_wrong_with_the_graph",
    ),
    _at(
        "if len(boundaries) != len(plan.boundaries):",
        "if len(boundaries) > len(plan.boundaries):",
        _GRAPH,
    ),
    _at("if nodes & set(chunk.nodes) or", "if", _EDGES),
    _at(" or not chunk.inputs:", ":", _GRAPH),
    _at(
        "if chunk.arguments.input_scale != plan.input_scale:\n            raise _topology",
        "if chunk.arguments.input_scale < plan.input_scale:\n            raise _topology",
        _SCALES,
    ),
    _at("            if name in producers:\n", "            if not name:\n", _GRAPH),
    _at("boundary.producer != producers.get(name) or", "", _GRAPH),
    _at(" or list(boundary.consumers) != consumers[name]:", ":", _GRAPH),
    _at(
        "(name in inputs) != (boundary.producer is None):",
        "name in inputs and boundary.producer is not None:",
        _GRAPH,
    ),
    _at("position[reader] <= made for reader", "position[reader] < 0 for reader", _GRAPH),
    _at("if boundary.scale < plan.input_scale:", "if boundary.scale < 0:", _SCALES),
    _at(
        "if boundary.producer is None and boundary.scale != plan.input_scale:",
        "if boundary.producer is None and boundary.scale < plan.input_scale:",
        _SCALES,
    ),
    _at(
        "if not set(ends) <= set(boundaries) or len(set(ends)) != len(ends):",
        "if not set(ends) <= set(boundaries):",
        _EDGES,
    ),
    _at(
        "if [pin.chunk for pin in sealed.verifying_keys] "
        "!= [chunk.id for chunk in sealed.plan.chunks]:",
        "if not sealed.verifying_keys:",
        _PAPER,
    ),
    _at("    if pinned != needed:\n", "    if not set(needed) <= set(pinned):\n", _PAPER),
    _at(
        "if pin.trust != trust_of(pin.logrows, pin.sha256):",
        "if pin.trust == 'insecure' != trust_of(pin.logrows, pin.sha256):",
        f"{_PLAN}::test_srs_is_called_ceremony_exactly_when_its_digest_is",
    ),
    _at(
        "    if rebuilt.plan != plan:\n",
        "    if rebuilt.plan.model_sha256 != plan.model_sha256:\n",
        f"{_PAPER}::test_rebuilt_plan_is_compared_with_the_plan",
    ),
    _floor(
        "if plan.input_scale < policy.min_scale:",
        "if plan.input_scale < policy.min_scale - 1:",
        "test_floor_of_the_scale_refuses_exactly_what_is_below_it",
    ),
    _floor(
        "if bits < policy.min_weight_bits:",
        "if bits < policy.min_weight_bits - 1:",
        "test_floor_of_weight_bits_refuses_exactly_what_is_below_it",
    ),
    _floor(
        "step.parameter < policy.min_weight_bits:",
        "step.parameter < policy.min_weight_bits - 1:",
        "test_floor_of_weight_bits_holds_for_rewrites_that_round_weights",
    ),
    _floor(
        "if bits < policy.min_table_bits:",
        "if bits < policy.min_table_bits - 1:",
        "test_floors_of_hinted_circuits_are_of_their_rows",
    ),
    _floor(
        "if lost > policy.max_weight_loss * norm and",
        "if lost > 2 * norm and",
        "test_weights_that_rounding_would_wipe_out_are_refused_whatever_their_bits",
    ),
    _extent("    if got > most:\n", "    if got > 10**9 * most:\n", _ASKS),
    _extent(
        "if packed * limits.MIN_HASH_ROWS > rows:",
        "if packed > 10**6 * rows:",
        _ROWS,
    ),
    _extent(
        "if (chunk.inputs, chunk.outputs, chunk.operators) != (incoming, outgoing, operators):",
        "if len(chunk.inputs) != len(incoming):",
        _STRUCTURE,
    ),
)

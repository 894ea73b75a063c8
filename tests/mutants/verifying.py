"""Mutants of the verifier: every comparison of what it reads with what it trusts."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_PLAN: Final = "tests/unit/test_verifier_plan.py"
_STEPS: Final = "tests/unit/test_verifier_steps.py"
_READER: Final = "tests/unit/test_verifier_reader.py"
_ATTACKS: Final = "tests/soundness/test_attacks.py"


def _at(name: str, text: str, instead: str, *tests: str, quick: bool = False) -> Mutant:
    return Mutant(f"zkml_ray/verifying/{name}.py", text, instead, tests, quick=quick)


_EDGES: Final = f"{_PLAN}::test_dropped_or_repeated_edges_are_refused"
_SCALES: Final = f"{_PLAN}::test_scales_of_boundaries_are_the_inputs_or_above"
_LIMITS: Final = f"{_PLAN}::test_arguments_beyond_limits_are_refused"
_PAPER: Final = "tests/unit/test_verifier_graph.py"
_PAPER_HINTED: Final = f"{_PAPER}::test_hinted_circuit_of_other_numbers_is_refused"
_GRAPH: Final = f"{_PAPER}::test_graph_with_one_thing_wrong_is_refused"

TRUST: Final = (
    _at(
        "trust",
        "if digest != trust.plan_digest:",
        "if not digest:",
        f"{_STEPS}::test_plan_of_another_digest_is_not_the_trusted_one",
    ),
    _at("trust", "if own != sealed.plan.model_sha256:", "if not own:", _PAPER),
    _at(
        "trust",
        "(self.model is None) == (self.plan_digest is None)",
        "self.model is None and self.plan_digest is None",
        _PAPER,
    ),
    _at(
        "trust",
        "if plan.ezkl_version != backend.EZKL_VERSION:",
        "if not plan.ezkl_version:",
        _PAPER,
    ),
    _at(
        "trust",
        "if dimensions != sorted(set(dimensions)):",
        "if dimensions != sorted(dimensions):",
        f"{_PLAN}::test_dimensions_out_of_order_or_repeated_are_refused",
    ),
    _at(
        "trust",
        "if bits > MAX_DECOMPOSITION_BITS:",
        "if bits > 10 * MAX_DECOMPOSITION_BITS:",
        _PAPER,
    ),
    _at(
        "trust",
        "arguments.decomp_base**arguments.decomp_legs - 1 > packing.element_bound:",
        "arguments.decomp_legs > packing.element_bound:",
        _PAPER,
    ),
    _at(
        "trust",
        "bits * (arguments.scale_rebase_multiplier + 1) + ACCUMULATION_BITS",
        "bits * arguments.scale_rebase_multiplier + ACCUMULATION_BITS",
        _LIMITS,
    ),
    _at(
        "trust",
        "if not -MAX_LOOKUP <= low < 0 < high <= MAX_LOOKUP:",
        "if not -MAX_LOOKUP <= low < high <= MAX_LOOKUP:",
        _LIMITS,
    ),
    _at(
        "trust",
        "        if arguments.range_bits:\n".replace("        ", "    "),
        "    if arguments.range_bits > 20:\n",
        _PAPER,
    ),
    _at(
        "trust",
        "if plan.commitment.salts_apart and not plan.commitment.salted:",
        "if plan.commitment.salts_apart and plan.commitment.max_slots < 0:",
        _PAPER,
    ),
    _at(
        "trust",
        "    if arguments.lookup_range != table:\n",
        "    if arguments.lookup_range > table:\n",
        _PAPER_HINTED,
        quick=True,
    ),
    _at(
        "trust",
        '    if arguments.input_scale != plan.input_scale:\n        raise _argument(f"{chunk.id} input_scale"',
        '    if arguments.input_scale > plan.input_scale:\n        raise _argument(f"{chunk.id} input_scale"',
        _PAPER_HINTED,
    ),
    _at(
        "trust",
        "if numbers.value_bound > packing.injective_bound:",
        "if numbers.value_bound > 8 * packing.injective_bound:",
        f"{_PAPER}::test_hinted_circuit_whose_values_overlap_when_packed_is_refused",
    ),
    _at(
        "trust",
        "if plan.commitment.salted and not plan.commitment.salts_apart:",
        "if plan.commitment.salted and plan.commitment.max_slots < 0:",
        f"{_PLAN}::test_salts_beside_values_are_refused_with_hinted_circuits",
    ),
    _at(
        "trust",
        "    if derived != boundary.layout:\n",
        "    if derived.element_count != boundary.layout.element_count:\n",
        _PAPER,
    ),
    _at(
        "trust",
        "if list(position) != [f",
        "if sorted(position) != [f",
        f"{_PAPER}::test_refusal_says_what_is_wrong_with_the_graph",
    ),
    _at(
        "trust",
        "if len(boundaries) != len(plan.boundaries):",
        "if len(boundaries) > len(plan.boundaries):",
        _GRAPH,
    ),
    _at("trust", "if nodes & set(chunk.nodes) or", "if", _EDGES),
    _at("trust", " or not chunk.inputs:", ":", _GRAPH),
    _at(
        "trust",
        "if chunk.arguments.input_scale != plan.input_scale:\n            raise _topology",
        "if chunk.arguments.input_scale < plan.input_scale:\n            raise _topology",
        _SCALES,
    ),
    _at("trust", "            if name in producers:\n", "            if not name:\n", _GRAPH),
    _at("trust", "boundary.producer != producers.get(name) or", "", _GRAPH),
    _at("trust", " or list(boundary.consumers) != consumers[name]:", ":", _GRAPH),
    _at(
        "trust",
        "(name in plan.model_inputs) != (boundary.producer is None):",
        "name in plan.model_inputs and boundary.producer is not None:",
        _GRAPH,
    ),
    _at("trust", "position[reader] <= made for reader", "position[reader] < 0 for reader", _GRAPH),
    _at("trust", "if boundary.scale < plan.input_scale:", "if boundary.scale < 0:", _SCALES),
    _at(
        "trust",
        "if boundary.producer is None and boundary.scale != plan.input_scale:",
        "if boundary.producer is None and boundary.scale < plan.input_scale:",
        _SCALES,
    ),
    _at(
        "trust",
        "if not set(ends) <= set(boundaries) or len(set(ends)) != len(ends):",
        "if not set(ends) <= set(boundaries):",
        _EDGES,
    ),
    _at(
        "trust",
        "if [pin.chunk for pin in sealed.verifying_keys] != [chunk.id for chunk in sealed.plan.chunks]:",
        "if not sealed.verifying_keys:",
        _PAPER,
    ),
    _at("trust", "    if pinned != needed:\n", "    if not set(needed) <= set(pinned):\n", _PAPER),
    _at(
        "trust",
        "if pin.trust != trust_of(pin.logrows, pin.sha256):",
        "if pin.trust == 'insecure' != trust_of(pin.logrows, pin.sha256):",
        f"{_PLAN}::test_srs_is_called_ceremony_exactly_when_its_digest_is",
    ),
    _at(
        "trust",
        "    if rebuilt.plan != plan:\n",
        "    if rebuilt.plan.model_sha256 != plan.model_sha256:\n",
        f"{_PAPER}::test_rebuilt_plan_is_compared_with_the_plan",
    ),
)

STEPS: Final = (
    _at(
        "verifier",
        "if manifest.statement.plan_sha256 != manifest.plan_sha256:",
        "if not manifest.plan_sha256:",
        f"{_STEPS}::test_statement_and_manifest_of_two_plans_are_refused",
    ),
    _at(
        "verifier",
        "        if expected != got:\n",
        "        if not expected and got:\n",
        f"{_STEPS}::test_manifest_that_says_something_else_than_the_plan_is_refused",
    ),
    _at(
        "verifier",
        '        ("proofs of no chunk", "", ", ".join(stray)),\n',
        "",
        f"{_STEPS}::test_manifest_that_says_something_else_than_the_plan_is_refused",
    ),
    _at(
        "verifier",
        "    pins |= {names.verifying_key(pin.chunk): pin.sha256 for pin in sealed.verifying_keys}\n",
        "",
        f"{_STEPS}::test_everything_that_a_plan_pins_is_compared_with_the_manifest",
    ),
    _at(
        "verifier",
        "        pins[names.settings(chunk.id)] = chunk.settings_sha256\n",
        "",
        f"{_STEPS}::test_everything_that_a_plan_pins_is_compared_with_the_manifest",
    ),
    _at(
        "verifier",
        'sealed.srs_trust() == "insecure" and not allow_insecure_srs',
        "False",
        f"{_STEPS}::test_generated_srs_counts_only_if_allowed",
    ),
    _at(
        "verifier",
        "    if stated != [(name, encode(value)) for name, value in computed.items()]:\n",
        "    if not stated:\n",
        f"{_STEPS}::test_stated_commitments_of_other_leaves_are_refused",
    ),
    _at(
        "verifier",
        "    if claimed != [(name, encode(value)) for name, value in computed.items() if name in ends]:\n",
        "    if not claimed:\n",
        f"{_STEPS}::test_statement_of_other_commitments_than_the_ends_is_refused",
    ),
    _at(
        "verifier",
        "if shown_names != [name for name in boundaries if name in set(shown_names)]:",
        "if not set(shown_names) <= set(boundaries):",
        f"{_STEPS}::test_revealed_boundaries_of_another_form_are_refused",
    ),
    _at(
        "verifier",
        "if _leaf_hashes(shown, boundary) != list(leaves[shown.boundary]):",
        "if len(_leaf_hashes(shown, boundary)) != len(leaves[shown.boundary]):",
        f"{_STEPS}::test_any_revealed_number_that_is_another_is_refused",
        quick=True,
    ),
    _at(
        "verifier",
        "math.ldexp(v, -boundary.scale)",
        "math.ldexp(v, -boundary.scale - 1)",
        f"{_STEPS}::test_run_on_paper_passes_every_step",
    ),
    _at(
        "verifier",
        "if len(set(hashes)) != len(hashes) or len(set(salts)) != len(salts):",
        "if len(set(salts)) != len(salts):",
        f"{_STEPS}::test_leaf_hash_that_serves_twice_is_refused",
    ),
    _at(
        "verifier",
        "if len(set(hashes)) != len(hashes) or len(set(salts)) != len(salts):",
        "if len(set(hashes)) != len(hashes):",
        f"{_STEPS}::test_salts_that_serve_two_leaves_are_refused",
    ),
    _at(
        "link",
        "if set(instances) != expected:",
        "if not set(instances) <= expected:",
        f"{_STEPS}::test_proofs_of_other_chunks_than_the_plans_are_refused",
    ),
    _at(
        "link",
        "if len(instances[chunk.id]) != count:",
        "if len(instances[chunk.id]) < count:",
        f"{_STEPS}::test_proof_of_more_or_fewer_instances_than_its_leaves_is_refused",
    ),
    _at(
        "link",
        "                if a != b:\n",
        "                if a != b and index == 0:\n",
        f"{_STEPS}::test_any_leaf_that_two_chunks_show_differently_is_refused",
        quick=True,
    ),
    _at(
        "link",
        "            start += leaf_counts[name]\n",
        "",
        f"{_STEPS}::test_any_leaf_that_two_chunks_show_differently_is_refused",
        f"{_STEPS}::test_run_on_paper_passes_every_step",
    ),
    _at(
        "link",
        "    check_instance_layout(plan, instances)\n",
        "",
        f"{_STEPS}::test_proof_of_more_or_fewer_instances_than_its_leaves_is_refused",
    ),
)

_READ: Final = f"{_READER}::test_artifact_is_read_only_as_listed_pinned_and_stored"

READER: Final = (
    _at(
        "reader",
        "        if ref.size_bytes > max_bytes:\n",
        "        if ref.size_bytes > max_bytes + 1:\n",
        _READ,
    ),
    _at(
        "reader",
        "        if pinned is not None and ref.sha256 != pinned:\n",
        "        if pinned is not None and not ref.sha256:\n",
        _READ,
    ),
    _at(
        "reader",
        "        if size_bytes != ref.size_bytes:\n",
        "        if size_bytes > ref.size_bytes:\n",
        _READ,
    ),
    _at(
        "reader",
        "            if ref is not None and ref.sha256 != sha256:\n",
        "            if ref is None:\n",
        f"{_READER}::test_whatever_is_listed_under_a_pinned_name_is_the_pinned",
    ),
    _at(
        "reader",
        "        if sealed.digest() != sha256:\n",
        "        if not sealed.digest():\n",
        f"{_READER}::test_sealed_plan_is_the_canonical_one_of_its_digest",
    ),
    _at(
        "reader",
        "        if part != pin.verifier_sha256:\n",
        "        if not part:\n",
        f"{_READER}::test_srs_is_the_pinned_one_and_its_verifiers_part_is_of_it",
    ),
    _at(
        "reader",
        "        if name in self._artifacts:\n            return self.file",
        "        if made is None:\n            return self.file",
        f"{_READER}::test_verifying_key_is_the_stored_or_else_the_one_made",
    ),
    _at(
        "reader",
        "return self._store.read_verified(ref, max_bytes=max_bytes)",
        "return self._store.get(ref.key, max_bytes=max_bytes)",
        _READ,
        quick=True,
    ),
    _at(
        "reader",
        "self._store.fetch_verified(ref, path)",
        "self._store.get_file(ref.key, path)",
        _READ,
    ),
)

PROOFS: Final = (
    _at(
        "verifier",
        "        if not backend.verify_proof(proof, settings, vk, srs):\n",
        "        if len(proof.instances) == 0:\n",
        f"{_ATTACKS}::test_replayed_proof_of_another_run_is_refused",
        f"{_ATTACKS}::test_truncated_proof_is_refused",
    ),
    _at(
        "verifier",
        "        if backend.verify_proof(shorter, settings, vk, srs):\n",
        "        if len(shorter.proof) == 0:\n",
        f"{_ATTACKS}::test_trailing_bytes_after_the_proof_are_refused",
    ),
    _at(
        "verifier",
        "        check_named(trust, sealed, manifest.plan_sha256)\n",
        "",
        f"{_ATTACKS}::test_wrong_model_with_the_same_shapes_is_refused_by_both_trust_roots",
    ),
    _at(
        "verifier",
        "        check_topology(plan)\n",
        "",
        f"{_ATTACKS}::test_residual_edge_cut_from_one_consumer_is_refused",
    ),
    _at(
        "verifier",
        "        check_pins(sealed)\n",
        "",
        f"{_ATTACKS}::test_insecure_srs_passed_off_as_ceremony_is_refused",
    ),
    _at(
        "verifier",
        "            made_keys = check_rebuilt(trust.model, sealed, whole)\n",
        "",
        f"{_ATTACKS}::test_forged_keys_behind_an_honest_plan_are_refused_by_both_trust_roots",
    ),
    _at(
        "verifier",
        "        _check_commitments(manifest, plan, computed)\n",
        "",
        f"{_ATTACKS}::test_swapped_boundary_commitments_are_refused",
    ),
    _at(
        "verifier",
        "        _check_salts(manifest, plan, leaves)\n",
        "",
        f"{_ATTACKS}::test_salt_reuse_is_refused",
    ),
    _at(
        "verifier",
        "    if (manifest.project, manifest.run_id) != (layout.project, layout.run_id):\n",
        "    if not manifest.project:\n",
        f"{_ATTACKS}::test_manifest_of_another_run_in_this_run_s_place_is_refused",
    ),
)
"""These need proofs, some twenty seconds each."""

MUTANTS: Final = (*TRUST, *STEPS, *READER, *PROOFS)

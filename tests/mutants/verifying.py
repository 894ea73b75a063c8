"""Mutants of the verifier's steps: each comparison of what is read with what is trusted."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_STEPS: Final = "tests/unit/test_verifier_steps.py"
_READER: Final = "tests/unit/test_verifier_reader.py"
_ATTACKS: Final = "tests/soundness/test_attacks.py"


def _at(name: str, text: str, instead: str, *tests: str, quick: bool = False) -> Mutant:
    return Mutant(f"zkml_ray/verifying/{name}.py", text, instead, tests, quick=quick)


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
        "    pins |= {names.verifying_key(pin.chunk): pin.sha256 "
        "for pin in sealed.verifying_keys}\n",
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
        "    if claimed != [(name, encode(value)) "
        "for name, value in computed.items() if name in ends]:\n",
        "    if not claimed:\n",
        f"{_STEPS}::test_statement_of_other_commitments_than_the_ends_is_refused",
    ),
    _at(
        "verifier",
        "if shown_names != [name for name in boundaries if name in known]:",
        "if not known <= set(boundaries):",
        f"{_STEPS}::test_revealed_boundaries_of_another_form_are_refused",
    ),
    _at(
        "verifier",
        "if _leaf_hashes(shown, boundary) != list(leaves[shown.boundary]):",
        "if len(_leaf_hashes(shown, boundary)) != len(leaves[shown.boundary]):",
        f"{_STEPS}::test_any_revealed_number_that_is_another_is_refused",
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
        "            circuits, made_keys = check_rebuilt(trust.model, graph, sealed, whole)\n",
        "            circuits = None\n",
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

MUTANTS: Final = (*STEPS, *READER, *PROOFS)

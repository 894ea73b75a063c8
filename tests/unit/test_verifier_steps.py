"""The verifier's steps around the proofs, one at a time, with one thing wrong in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.paper_run import PaperRun, digest_of, paper_plan, paper_run
from zkml_ray import names
from zkml_ray.errors import InsecureSrsError, VerificationError
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import SealedPlan
from zkml_ray.verifying import verifier
from zkml_ray.verifying.link import boundary_leaves, check_instance_layout, commitments
from zkml_ray.verifying.trust import TrustRoot, check_arguments, check_named, check_topology

Json = dict[str, Any]


@pytest.fixture(scope="module")
def run() -> PaperRun:
    return paper_run()


def refused(code: str, check: Callable[[], object]) -> None:
    with pytest.raises(VerificationError) as caught:
        check()
    assert caught.value.code == code


def edited(manifest: Manifest, edit: Callable[[Json], object]) -> Manifest:
    document = manifest.model_dump(mode="json")
    edit(document)
    return Manifest.model_validate_json(json.dumps(document))


def statement_of(manifest: Manifest, run: PaperRun) -> dict[str, tuple[float, ...]]:
    computed = commitments(run.plan, run.leaves)
    return verifier._check_statement(manifest, run.plan, computed, run.leaves)


def test_run_on_paper_passes_every_step(run: PaperRun) -> None:
    check_arguments(run.plan)
    check_topology(run.plan)
    check_named(TrustRoot(plan_digest=run.sealed.digest()), run.sealed, run.sealed.digest())
    verifier._check_one_plan(run.manifest)
    verifier._check_manifest(run.manifest, run.sealed)
    leaves = boundary_leaves(run.plan, run.instances)
    assert {name: list(found) for name, found in leaves.items()} == run.leaves
    computed = commitments(run.plan, leaves)
    verifier._check_commitments(run.manifest, run.plan, computed)
    shown = statement_of(run.manifest, run)
    assert shown == {n: tuple(v / 128 for v in run.values[n]) for n in ("x", "y")}
    verifier._check_salts(run.manifest, run.plan, leaves)
    assert all(len(found) > 1 for name, found in leaves.items() if name != "y")


# Step 1.


def test_plan_of_another_digest_is_not_the_trusted_one(run: PaperRun) -> None:
    trust = TrustRoot(plan_digest=digest_of("another plan"))
    refused("plan-digest", lambda: check_named(trust, run.sealed, run.sealed.digest()))


def test_statement_and_manifest_of_two_plans_are_refused(run: PaperRun) -> None:
    other = edited(run.manifest, lambda m: m.update(plan_sha256=digest_of("another plan")))
    refused("statement-plan", lambda: verifier._check_one_plan(other))


# Step 3.


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(model_sha256=digest_of("another model")),
        lambda m: m.update(srs_trust="ceremony"),
        lambda m: m["chunks"].reverse(),
        lambda m: m["chunks"].pop(),
        lambda m: m["artifacts"].update(
            {names.proof("chunk-007"): m["artifacts"][names.proof("chunk-000")]}
        ),
    ],
)
def test_manifest_that_says_something_else_than_the_plan_is_refused(
    run: PaperRun, edit: Callable[[Json], object]
) -> None:
    other = edited(run.manifest, edit)
    refused("manifest-claims", lambda: verifier._check_manifest(other, run.sealed))


def test_everything_that_a_plan_pins_is_compared_with_the_manifest(run: PaperRun) -> None:
    pins = verifier._pinned(run.sealed)
    document = run.sealed.model_dump_json()
    for name, sha256 in pins.items():
        assert document.count(sha256) == 1, name
    digests = {run.plan.model_sha256, run.plan.normalised_sha256}
    digests |= {digest for c in run.plan.chunks for digest in (c.onnx_sha256, c.settings_sha256)}
    digests |= {digest for pin in run.sealed.srs for digest in (pin.sha256, pin.verifier_sha256)}
    digests |= {pin.sha256 for pin in run.sealed.verifying_keys}
    assert set(pins.values()) == digests


# Step 4.


def test_generated_srs_counts_only_if_allowed(run: PaperRun) -> None:
    verifier._check_srs_trust(run.sealed, allow_insecure_srs=True)
    with pytest.raises(InsecureSrsError):
        verifier._check_srs_trust(run.sealed, allow_insecure_srs=False)


def test_one_generated_srs_among_those_of_the_ceremony_is_not_the_ceremonys(run: PaperRun) -> None:
    (pin,) = run.sealed.srs
    other = pin.model_copy(update={"logrows": 11, "trust": "ceremony"})
    mixed = SealedPlan(plan=run.plan, srs=(pin, other), verifying_keys=run.sealed.verifying_keys)
    with pytest.raises(InsecureSrsError):
        verifier._check_srs_trust(mixed, allow_insecure_srs=False)


# Steps 5 and 7.


def test_proofs_of_other_chunks_than_the_plans_are_refused(run: PaperRun) -> None:
    first, second = run.instances.values()
    for instances in (
        {"chunk-000": first},
        {"chunk-000": first, "chunk-001": second, "chunk-002": second},
        {"chunk-000": first, "chunk-002": second},
    ):
        refused("plan-topology", lambda i=instances: check_instance_layout(run.plan, i))


@pytest.mark.parametrize("change", [1, -1])
def test_proof_of_more_or_fewer_instances_than_its_leaves_is_refused(
    run: PaperRun, change: int
) -> None:
    for chunk, values in run.instances.items():
        wrong = [*values, 0] if change > 0 else values[:-1]
        instances = {**run.instances, chunk: wrong}
        refused("instance-count", lambda i=instances: check_instance_layout(run.plan, i))
        refused("instance-count", lambda i=instances: boundary_leaves(run.plan, i))


def test_any_leaf_that_two_chunks_show_differently_is_refused(run: PaperRun) -> None:
    """Every leaf of every boundary that is read, from either side, the residual edge included."""
    tried = 0
    for chunk in run.plan.chunks:
        start = 0
        for name in chunk.touched():
            for index in range(len(run.leaves[name])):
                if name != "y":
                    values = list(run.instances[chunk.id])
                    values[start + index] += 1
                    instances = {**run.instances, chunk.id: values}
                    refused("boundary-mismatch", lambda i=instances: boundary_leaves(run.plan, i))
                    tried += 1
            start += len(run.leaves[name])
    assert tried == 2 * (len(run.leaves["x"]) + len(run.leaves["h"]))


# Step 8.


def test_stated_commitments_of_other_leaves_are_refused(run: PaperRun) -> None:
    for name in run.leaves:
        other = {n: [leaf + (n == name) for leaf in found] for n, found in run.leaves.items()}
        computed = commitments(run.plan, other)
        refused(
            "manifest-commitments",
            lambda c=computed: verifier._check_commitments(run.manifest, run.plan, c),
        )


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["statement"]["commitments"].pop(),
        lambda m: m["statement"]["commitments"].reverse(),
        lambda m: m["statement"]["commitments"].append(m["boundaries"][1]),
        lambda m: m["statement"]["commitments"][0].update(
            commitment=m["boundaries"][1]["commitment"]
        ),
    ],
)
def test_statement_of_other_commitments_than_the_ends_is_refused(
    run: PaperRun, edit: Callable[[Json], object]
) -> None:
    other, computed = edited(run.manifest, edit), commitments(run.plan, run.leaves)
    refused("statement-commitments", lambda: verifier._check_commitments(other, run.plan, computed))


# Step 9.


@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("what", ["values", "salts"])
def test_any_revealed_number_that_is_another_is_refused(
    run: PaperRun, name: str, what: str
) -> None:
    place = ["x", "y"].index(name)
    count = len(getattr(run.manifest.statement.revealed[place], what))
    for index in range(count):

        def edit(m: Json, index: int = index) -> None:
            shown = m["statement"]["revealed"][place][what]
            shown[index] += 1 if shown[index] < 0 else -1

        other = edited(run.manifest, edit)
        refused("statement-values", lambda other=other: statement_of(other, run))


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda r: r.reverse(), "statement-revealed"),
        (lambda r: r.append(r[-1]), "statement-revealed"),
        (lambda r: r[0].update(boundary="z"), "statement-revealed"),
        (lambda r: r[0]["values"].append(0), "statement-range"),
        (lambda r: r[0]["values"].pop(), "statement-range"),
        (lambda r: r[0]["salts"].pop(), "statement-range"),
        (lambda r: r[0]["values"].__setitem__(0, 1 << 28), "statement-range"),
    ],
)
def test_revealed_boundaries_of_another_form_are_refused(
    run: PaperRun, edit: Callable[[list[Json]], object], code: str
) -> None:
    other = edited(run.manifest, lambda m: edit(m["statement"]["revealed"]))
    refused(code, lambda: statement_of(other, run))


def test_leaf_hash_that_serves_twice_is_refused(run: PaperRun) -> None:
    leaves = {**run.leaves, "y": [run.leaves["x"][0]]}
    refused("salt-reuse", lambda: verifier._check_salts(run.manifest, run.plan, leaves))


def test_salts_that_serve_two_leaves_are_refused(run: PaperRun) -> None:
    width = run.plan.boundary("x").layout.salts_per_leaf

    def edit(m: Json) -> None:
        shown = m["statement"]["revealed"]
        shown[1]["salts"][:width] = shown[0]["salts"][width : 2 * width]

    other = edited(run.manifest, edit)
    refused("salt-reuse", lambda: verifier._check_salts(other, run.plan, run.leaves))


def test_plan_without_salts_may_repeat_leaves(run: PaperRun) -> None:
    plain = paper_plan(run.plan.commitment.model_copy(update={"salted": False}))
    leaves = {**run.leaves, "y": [run.leaves["x"][0]]}
    verifier._check_salts(run.manifest, plain, leaves)

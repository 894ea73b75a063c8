"""The commitments that circuits compute are the ones that native code computes."""

from __future__ import annotations

import pytest

from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.commitments.leaves import hash_leaves, pack_leaves
from zkml_ray.commitments.leaves import salt_bits as bits_of
from zkml_ray.errors import OpeningError
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.openings import check_opening, open_activation

pytestmark = pytest.mark.ray

RUNS = ["digits_run", "residual_run"]


def checkpoints(run: Run) -> dict[str, BoundaryCheckpoint]:
    store = open_store(run.store)
    found = {}
    for index, boundary in enumerate(run.plan.boundaries):
        ref = run.manifest.artifacts[names.checkpoint(index)]
        found[boundary.name] = BoundaryCheckpoint.parse(store.read_verified(ref), what="checkpoint")
    return found


@pytest.mark.parametrize("fixture", RUNS)
def test_native_leaf_hashes_equal_public_instances_of_producer_and_consumers(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(fixture)
    store, known = open_store(run.store), checkpoints(run)
    compared = dict.fromkeys(known, 0)
    for chunk in run.plan.chunks:
        ref = run.manifest.artifacts[names.proof(chunk.id)]
        instances = ChunkProof.parse(store.read_verified(ref), what="proof").elements()
        for name in chunk.touched():
            layout = run.plan.boundary(name).layout.layout()
            native = hash_leaves(pack_leaves(known[name].values, known[name].salts, layout))
            assert instances[: layout.leaf_count] == native
            instances = instances[layout.leaf_count :]
            compared[name] += 1
        assert instances == []
    for boundary in run.plan.boundaries:
        assert compared[boundary.name] == len(boundary.consumers) + (boundary.producer is not None)


def test_residual_boundary_is_read_by_three_chunks(residual_run: Run) -> None:
    assert max(len(boundary.consumers) for boundary in residual_run.plan.boundaries) == 3


@pytest.mark.parametrize("fixture", RUNS)
def test_salts_carry_128_bits_and_differ_between_boundaries(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(fixture)
    drawn = []
    for boundary in run.plan.boundaries:
        layout = boundary.layout.layout()
        assert layout.salts_per_leaf * bits_of(layout.packing) >= 128
        drawn.append(checkpoints(run)[boundary.name].salts)
    assert len(set(drawn)) == len(drawn)


def test_every_element_of_a_hidden_activation_opens_and_verifies(digits_run: Run) -> None:
    store = open_store(digits_run.store)
    layout = RunLayout(digits_run.project, digits_run.run_id)
    hidden = checkpoints(digits_run)["relu3_out"]
    for index, value in enumerate(hidden.values):
        opening = open_activation(store, layout, boundary="relu3_out", index=index)
        shown = check_opening(opening.model_dump_json().encode(), digits_run.manifest)
        assert shown.elements[index - shown.start_index] == value


def test_opening_of_another_run_is_refused(digits_run: Run, residual_run: Run) -> None:
    store = open_store(residual_run.store)
    layout = RunLayout(residual_run.project, residual_run.run_id)
    opening = open_activation(store, layout, boundary="h", index=0)
    with pytest.raises(OpeningError, match="another run"):
        check_opening(opening, digits_run.manifest)
    relabelled = opening.model_copy(update={"run_id": digits_run.run_id, "boundary": "relu3_out"})
    with pytest.raises(OpeningError):
        check_opening(relabelled, digits_run.manifest)

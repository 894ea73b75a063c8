"""Showing one activation from the middle of a network, and checking such an opening.

`open_activation` is the prover's side: it needs the run's private checkpoints. `check_opening` is
a third party's: it needs the opening and the manifest of a run that they have verified. The
boundary commitment binds the boundary's name, shape, scale and layout, so the opening's own
account of them is checked by recomputing the commitment, and nothing but the manifest is trusted.
"""

from __future__ import annotations

from zkml_ray import names
from zkml_ray.commitments.field import decode
from zkml_ray.commitments.leaves import LeafLayout
from zkml_ray.commitments.merkle import BoundaryMetadata
from zkml_ray.commitments.opening import (
    OpenedElements,
    Opening,
    open_leaf,
    parse_opening,
    verify_opening,
)
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.errors import (
    ConfigError,
    FieldRangeError,
    ManifestError,
    OpeningError,
)
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import SealedPlan
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.reader import MAX_MANIFEST_BYTES, manifest_bytes


def read_manifest(store: ArtifactStore, layout: RunLayout) -> Manifest:
    """A stored run's manifest, parsed.

    Raises:
        ConfigError: There is no such run.
        ManifestError: The manifest is not valid.
    """
    data = manifest_bytes(store, layout)
    return Manifest.parse(data, what="manifest", max_bytes=MAX_MANIFEST_BYTES)


def open_activation(
    store: ArtifactStore, layout: RunLayout, *, boundary: str, index: int
) -> Opening:
    """Open the leaf of a boundary that holds one element.

    Args:
        store: Where the run lies, private checkpoints included.
        layout: Its project and id.
        boundary: The boundary's name.
        index: Flat, row-major index of the element.

    Returns:
        The opening; it shows the whole leaf and its salts, and no other leaf.

    Raises:
        ConfigError: No such run, boundary or element, or the run kept no checkpoints.
        OpeningError: The checkpoint is not the one that the run committed to.
    """
    manifest = read_manifest(store, layout)
    sealed_ref = manifest.artifacts.get(names.SEALED_PLAN)
    if sealed_ref is None:
        raise ManifestError("the manifest lists no sealed plan")
    plan = SealedPlan.parse(store.read_verified(sealed_ref), what="sealed plan").plan
    known = [entry.name for entry in plan.boundaries]
    if boundary not in known:
        few = (
            "; it was proved as one chunk, whose inner tensors are none: prove it with "
            "--layers-per-chunk 1"
            if len(plan.chunks) == 1
            else ""
        )
        raise ConfigError(f"no boundary {boundary}; this run's are {', '.join(known)}{few}")
    position = known.index(boundary)
    ref = manifest.artifacts.get(names.checkpoint(position))
    if ref is None:
        raise ConfigError(
            f"run {layout.run_id} kept no checkpoints (--keep-checkpoints no): nothing of it can "
            "be opened any more"
        )
    checkpoint = BoundaryCheckpoint.parse(
        store.read_verified(ref), what=f"checkpoint of boundary {boundary}"
    )
    try:
        opening = open_leaf(
            run_id=layout.run_id,
            metadata=plan.boundaries[position].metadata(),
            values=checkpoint.values,
            salts=checkpoint.salts,
            index_of_element=index,
        )
    except FieldRangeError as error:
        raise ConfigError(str(error)) from None
    check_opening(opening, manifest)
    return opening


def check_opening(opening: Opening | bytes, manifest: Manifest) -> OpenedElements:
    """Check an opening against the manifest of a verified run.

    Args:
        opening: The opening, or its bytes; nothing in it is trusted.
        manifest: The manifest of a run that the caller has verified.

    Returns:
        The elements shown.

    Raises:
        OpeningError: It does not open that run's commitment.
    """
    if isinstance(opening, bytes):
        opening = parse_opening(opening)
    if opening.run_id != manifest.run_id:
        raise OpeningError(
            "the opening is of another run",
            expected=manifest.run_id,
            got=opening.run_id,
            subject="run_id",
        )
    committed = {entry.boundary: entry.commitment for entry in manifest.boundaries}
    if opening.boundary not in committed:
        raise OpeningError(
            f"the run has no boundary {opening.boundary}",
            expected=", ".join(committed),
            got=opening.boundary,
            subject="boundary",
        )
    try:
        return verify_opening(
            opening,
            expected_commitment=decode(committed[opening.boundary]),
            expected_metadata=_claimed_metadata(opening),
        )
    except FieldRangeError as error:
        raise OpeningError(
            f"opening of {opening.boundary}: {error.message}", subject="layout"
        ) from None


def _claimed_metadata(opening: Opening) -> BoundaryMetadata:
    layout, packing = opening.layout, opening.layout.packing
    return BoundaryMetadata(
        name=opening.boundary,
        shape=opening.shape,
        scale=opening.scale,
        layout=LeafLayout(
            element_count=layout.element_count,
            leaf_count=layout.leaf_count,
            leaf_size=layout.leaf_size,
            salts_per_leaf=layout.salts_per_leaf,
            slots=layout.slots,
            packing=PackingSpec(
                decomp_base=packing.decomp_base,
                decomp_legs=packing.decomp_legs,
                stride_bits=packing.stride_bits,
                inner=packing.inner,
                outer=packing.outer,
            ),
        ),
    )

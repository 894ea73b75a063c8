"""Linking: what the proofs' public instances say about every boundary.

Only instances of verified proofs come in here. A boundary's leaves are taken from its producer
and must be shown, leaf by leaf, by every consumer. Topology comes from the plan: every chunk
exactly once, every edge, fan-out and residuals included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zkml_ray.commitments.field import encode
from zkml_ray.commitments.merkle import MerkleTree, boundary_commitment
from zkml_ray.errors import BoundaryMismatchError, VerificationError
from zkml_ray.schema.plan import Plan


def check_instance_layout(plan: Plan, instances: Mapping[str, Sequence[int]]) -> None:
    """Every chunk of the plan, no other, each with one instance per leaf that it touches.

    Args:
        plan: The topology.
        instances: Per chunk id, the public instances of its proof.

    Raises:
        VerificationError: Code "plan-topology" or "instance-count".
    """
    expected = {chunk.id for chunk in plan.chunks}
    if set(instances) != expected:
        missing = ", ".join(sorted(expected - set(instances))) or "none"
        extra = ", ".join(sorted(set(instances) - expected)) or "none"
        raise VerificationError(
            f"the proofs are not those of the plan's chunks: missing {missing}, unknown {extra}",
            code="plan-topology",
        )
    for chunk in plan.chunks:
        count = plan.instance_count(chunk)
        if len(instances[chunk.id]) != count:
            raise VerificationError(
                f"{chunk.id}: its proof has {len(instances[chunk.id])} public instances, the plan "
                f"expects {count}",
                expected=str(count),
                got=str(len(instances[chunk.id])),
                subject=chunk.id,
                code="instance-count",
            )


def boundary_leaves(
    plan: Plan, instances: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The leaf hashes of every boundary, agreed on by all chunks that touch it.

    Args:
        plan: The topology.
        instances: Per chunk id, the public instances of its verified proof.

    Returns:
        Per boundary name, its leaf hashes in order.

    Raises:
        BoundaryMismatchError: Two chunks show different leaves for one boundary.
        VerificationError: As for `check_instance_layout`.
    """
    check_instance_layout(plan, instances)
    leaf_counts = {boundary.name: boundary.layout.leaf_count for boundary in plan.boundaries}
    shown: dict[str, tuple[str, tuple[int, ...]]] = {}
    for chunk in plan.chunks:
        values = instances[chunk.id]
        start = 0
        for name in chunk.touched():
            leaves = tuple(values[start : start + leaf_counts[name]])
            start += leaf_counts[name]
            first, known = shown.setdefault(name, (chunk.id, leaves))
            for index, (a, b) in enumerate(zip(known, leaves, strict=True)):
                if a != b:
                    raise BoundaryMismatchError(
                        f"boundary {name}: leaf {index} of {first} and of {chunk.id} differ; these "
                        "proofs are not about the same activation",
                        expected=encode(a),
                        got=encode(b),
                        subject=name,
                    )
    return {name: leaves for name, (_, leaves) in shown.items()}


def commitments(plan: Plan, leaves: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Every boundary's commitment, from its leaf hashes.

    Args:
        plan: Gives the metadata that each commitment binds.
        leaves: Per boundary name, its leaf hashes (see `boundary_leaves`).

    Returns:
        Per boundary name, in plan order, the commitment as a field element.
    """
    return {
        boundary.name: boundary_commitment(
            MerkleTree(leaves[boundary.name]).root, boundary.metadata()
        )
        for boundary in plan.boundaries
    }

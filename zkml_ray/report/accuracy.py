"""How far each boundary of a proved run is from the float model: the prover's word.

The quantised values are the run's checkpoints, the float ones come from onnxruntime on the same
input. Only the differences are kept. It is not done where an input is hidden: a difference says
something, if little, about what it is the difference of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zkml_ray import names
from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.errors import ZkmlRayError
from zkml_ray.report.facts import RunFacts
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.request import StoredInput
from zkml_ray.stores.base import ArtifactStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryError:
    """Difference of one boundary from the float model.

    Attributes:
        boundary: Its name.
        max_abs_error: Largest absolute difference; None where there is no number.
        mean_abs_error: Mean absolute difference.
        largest: Largest magnitude in the float model.
    """

    boundary: str
    max_abs_error: float | None
    mean_abs_error: float | None
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What was found, or why nothing was.

    Attributes:
        boundaries: In plan order.
        note: Why there is nothing; empty otherwise.
    """

    boundaries: tuple[BoundaryError, ...] = ()
    note: str = ""


def boundary_accuracy(facts: RunFacts, store: ArtifactStore) -> Accuracy:
    """Compare a complete run's boundaries with the float model's."""
    manifest, plan = facts.manifest, facts.plan
    if manifest is None or plan is None:
        return Accuracy(note="the run is not complete")
    revealed = {entry.boundary for entry in manifest.statement.revealed}
    if not revealed.issuperset(plan.model_inputs):
        return Accuracy(note="the input is hidden, and so is what would tell of it")

    def private(name: str) -> ArtifactRef | None:
        return manifest.artifacts.get(name)

    kept = [private(names.checkpoint(i)) for i in range(len(plan.boundaries))]
    model, normalised = private(names.MODEL), private(names.NORMALISED)
    stored = private(names.INPUT)
    if model is None or normalised is None or stored is None or None in kept:
        return Accuracy(note="the run's boundary values were not kept")
    try:
        import onnx
        import onnxruntime  # noqa: F401

        from zkml_ray.chunking.graph import ModelGraph
        from zkml_ray.stages.accuracy import boundary_differences
        from zkml_ray.stages.inputs import from_store_form

        loaded = parse_model(store.read_verified(model), manifest.model_file)
        loaded = replace(loaded, tokens_outside=bool(plan.lookups))
        graph = normalised_graph(loaded, dict(plan.dimensions))
        document = StoredInput.parse(store.read_verified(stored), what="stored input")
        quantised = {}
        for boundary, ref in zip(plan.boundaries, kept, strict=True):
            if ref is not None:
                checkpoint = BoundaryCheckpoint.parse(
                    store.read_verified(ref), what=f"values of {boundary.name}"
                )
                quantised[boundary.name] = checkpoint.values
        differences = boundary_differences(
            loaded,
            plan,
            ModelGraph(onnx.ModelProto.FromString(store.read_verified(normalised))),
            graph,
            from_store_form(graph, document),
            quantised,
        )
    except ImportError:
        return Accuracy(note="onnxruntime is not installed here")
    except (ZkmlRayError, ValueError) as error:
        return Accuracy(note=f"it cannot be computed here: {error}")
    return Accuracy(
        boundaries=tuple(
            BoundaryError(
                boundary=entry.output,
                max_abs_error=entry.max_abs_error,
                mean_abs_error=entry.sum_abs_error / entry.elements if entry.elements else None,
                largest=entry.largest,
            )
            for entry in differences
        )
    )

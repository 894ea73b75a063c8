"""What a plan asks to be computed, compared with the model before it is.

With the model as trust root everything that a plan pins is made again, with arguments that a
stranger chose. A batch of 2^31 rows or a hundred thousand rewrites would keep a verifier busy for
hours before he learns that the plan is wrong. So, in this order:

- `check_extent`: dimensions are those that the model leaves open, and its tensors then are of a
  size that can be proved, before it is normalised as far as shapes are known then, and of all
  tensors afterwards. Normalised, which is bounded by that, it has so many nodes, and there are no
  more rewrites, chunks and boundaries than so many nodes can have.
- `check_structure`, after the rewrites, which are now few: tensors are of such a size still,
  chunks hold the graph's nodes, boundaries are the tensors between them, of their shapes, and every
  circuit has rows enough to hash what it commits to. So no circuit is made that is larger than the
  SRS that the run brings.

What a consistent plan then costs is that of an honest one of its size; a limit on seconds and
memory (`verifying.limited`) holds for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from zkml_ray import limits
from zkml_ray.errors import (
    ChunkingError,
    LimitExceededError,
    TrustRootError,
    ZkmlRayError,
    out_of_memory,
)
from zkml_ray.schema.plan import BoundaryPlan, ChunkPlan, Plan

if TYPE_CHECKING:
    import onnx

    from zkml_ray.chunking.graph import Crossing, ModelGraph
    from zkml_ray.chunking.load import LoadedModel

MAX_NODES_PER_NODE: Final = 64
"""Nodes of the rewritten graph for every node of the normalised one, for every rewrite and every
part of a split. A rewrite makes a dozen."""


def check_extent(model: LoadedModel, plan: Plan) -> ModelGraph:
    """The plan names no more than the model has.

    Returns:
        The model, normalised with the plan's dimensions, not rewritten.

    Raises:
        TrustRootError: Code "plan-extent", or "model-circuits" where the model cannot be normalised
            with the plan's dimensions.
    """
    # Imported here: the trust root "plan digest" needs no onnx.
    from zkml_ray.chunking.dimensions import open_dimensions
    from zkml_ray.circuits.derive import normalised_graph

    open_names = sorted(open_dimensions(model.proto))
    named = [name for name, _ in plan.dimensions]
    if named != open_names:
        raise _extent("dimensions", ", ".join(named), ", ".join(open_names) or "none")
    _check_tensors(model, plan)
    with _fits("the model was normalised"):
        graph = normalised_graph(model, dict(plan.dimensions))
    check_sizes(graph, limits.MAX_TENSOR_ELEMENTS)
    nodes = len(graph.nodes)
    _at_most("number of rewrites", len(plan.rewrites), limits.MAX_REWRITES_PER_NODE * nodes)
    if len({(step.name, step.node) for step in plan.rewrites}) != len(plan.rewrites):
        raise _extent("rewrites", "one twice", "each once")
    parts = sum(step.parameter for step in plan.rewrites)
    most = MAX_NODES_PER_NODE * (nodes + len(plan.rewrites) + parts)
    _at_most("number of nodes", sum(len(chunk.nodes) for chunk in plan.chunks), most)
    _at_most("number of chunks", len(plan.chunks), most)
    _at_most("number of boundaries", len(plan.boundaries), len(graph.inputs) + most)
    return graph


def check_structure(normalised: ModelGraph, plan: Plan) -> ModelGraph:
    """The plan's chunks and boundaries are those of the model's graph, and fit their circuits.

    Args:
        normalised: `check_extent`'s.
        plan: Its graph complete.

    Returns:
        The graph that the chunks are cut from.

    Raises:
        TrustRootError: Code "model-circuits" or "plan-extent".
    """
    from zkml_ray.circuits.derive import rewritten_graph

    with _fits("the model was rewritten"):
        graph = rewritten_graph(normalised, plan)
    check_sizes(graph, limits.MAX_REWRITTEN_ELEMENTS)
    with _fits("the model was cut into chunks"):
        crossings = graph.crossings([chunk.nodes for chunk in plan.chunks])
    _check_boundaries(plan, crossings)
    if (graph.inputs, graph.outputs) != (plan.model_inputs, plan.model_outputs):
        raise _differs("inputs or outputs of the model", plan)
    sizes = {boundary.name: _packed(boundary) for boundary in plan.boundaries}
    for index, chunk in enumerate(plan.chunks):
        incoming = tuple(c.tensor.name for c in crossings if index in c.consumers)
        outgoing = tuple(c.tensor.name for c in crossings if c.producer == index)
        operators = tuple(graph.nodes[name].op_type for name in chunk.nodes)
        if (chunk.inputs, chunk.outputs, chunk.operators) != (incoming, outgoing, operators):
            raise _differs(chunk.id, plan)
        _check_rows(chunk, sum(sizes[name] for name in chunk.touched()))
    return graph


def check_sizes(graph: ModelGraph, most: int) -> None:
    """All tensors of a graph together have so many elements, and none is of a size nobody knows.

    Before the model is normalised, shapes that follow from computed constants are not known.

    Raises:
        TrustRootError: Code "plan-extent".
    """
    elements = 0
    for name in (*graph.inputs, *graph.producer_of):
        try:
            elements += math.prod(graph.tensor(name).shape)
        except ChunkingError as error:
            raise _extent(f"tensor {name[:100]}", error.message, "a shape that is known") from None
    _at_most("number of elements of all tensors", elements, most)


@contextmanager
def _fits(doing: str) -> Iterator[None]:
    """Refuse whatever onnx or onnx-ir say of the model under a stranger's arguments."""
    try:
        yield
    except (OSError, LimitExceededError):
        raise
    except MemoryError:
        raise out_of_memory(doing) from None
    except Exception as error:
        raise TrustRootError(
            f"the plan does not fit the model: {type(error).__name__}: {str(error)[:500]}",
            code="model-circuits",
        ) from None


def _check_tensors(model: LoadedModel, plan: Plan) -> None:
    """The dimensions give tensors of a size that can be proved."""
    import onnx

    from zkml_ray.chunking.dimensions import fix_dimensions, free_inputs

    try:
        fixed = fix_dimensions(model.proto, dict(plan.dimensions))
    except ZkmlRayError as error:
        raise TrustRootError(
            f"the plan's dimensions do not fit the model: {error.message[:300]}",
            code="plan-extent",
        ) from None
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except MemoryError:
        raise out_of_memory("shapes were inferred") from None
    except Exception:  # what it cannot infer is refused, if it matters, when the graph is made
        inferred = fixed
    shapes = {
        value.name: _shape(value)
        for value in (*free_inputs(inferred), *inferred.graph.value_info, *inferred.graph.output)
    }
    elements = sum(math.prod(shape) for shape in shapes.values())
    _at_most("number of elements of all tensors", elements, limits.MAX_TENSOR_ELEMENTS)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The dimensions of a tensor; those that are not known yet count as 1."""
    return tuple(max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def _check_boundaries(plan: Plan, crossings: list[Crossing]) -> None:
    ids = [chunk.id for chunk in plan.chunks]
    for boundary, crossing in zip(plan.boundaries, crossings, strict=False):
        producer = None if crossing.producer is None else ids[crossing.producer]
        if (boundary.name, boundary.shape, boundary.producer, boundary.consumers) != (
            crossing.tensor.name,
            crossing.tensor.shape,
            producer,
            tuple(ids[index] for index in crossing.consumers),
        ):
            raise _differs(f"boundary {boundary.name}", plan)
    if len(plan.boundaries) != len(crossings):
        raise _differs("number of boundaries", plan)


def _packed(boundary: BoundaryPlan) -> int:
    layout = boundary.layout.layout()
    return layout.leaf_count * layout.packed_per_leaf


def _check_rows(chunk: ChunkPlan, packed: int) -> None:
    """A circuit is not smaller than what it has to hash."""
    rows = 1 << chunk.arguments.logrows
    if packed * limits.MIN_HASH_ROWS > rows:
        raise _extent(
            f"{chunk.id} logrows",
            f"{chunk.arguments.logrows}, for {packed} packed elements to hash",
            f"at least {(packed * limits.MIN_HASH_ROWS - 1).bit_length()}",
        )


def _at_most(what: str, got: int, most: int) -> None:
    if got > most:
        raise _extent(what, got, f"at most {most}")


def _extent(what: str, got: object, expected: object) -> TrustRootError:
    return TrustRootError(
        f"the plan's {what} cannot be this model's: {str(got)[:200]}; expected "
        f"{str(expected)[:200]}",
        expected=str(expected)[:500],
        got=str(got)[:500],
        subject=what,
        code="plan-extent",
    )


def _differs(what: str, plan: Plan) -> TrustRootError:
    return TrustRootError(
        f"the plan is not what the model gives: {what} differs",
        got=plan.digest(),
        subject=what,
        code="model-circuits",
    )

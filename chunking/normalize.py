"""Normalisation: one form for the graph that everything after this module relies on.

Postconditions of `normalise`, each made by a named step:

- every input is read, and every output depends on one (`normal_form.interface`);
- every input has a numeric shape, every tensor an inferred one (`fix_dimensions`, shape inference);
- all operators are those of one version, `OPSET` (`normal_form.opset`), none of them one that ONNX
  defines by others (`normal_form.expanded`);
- constants are initializers, and initializers are no graph inputs; what follows from constants
  alone is one (`normal_form.constants`); large equal ones are one;
- no truth values and no integers but constants: they are floats (`normal_form.logic`);
- all constants are finite (`finite`): infinite bounds of Clip are dropped, others refused;
- no Dropout, no BatchNormalization, no Gelu, no unused node or initializer, no Identity but where
  an output would otherwise be an input, a constant or another output;
- Conv and pooling nodes carry kernel_shape, strides, dilations, pads (and group) explicitly and
  no auto_pad, because tract refuses some of them when missing; pooling pads nothing, or as ezkl
  does; no operator is left that ezkl computes otherwise than ONNX says (`normal_form.meaning`);
- every operator is one of `SUPPORTED`;
- nodes are in topological order and have unique, non-empty names, as have values.

The result's bytes are a deterministic function of the model's bytes: their digest is in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes import InvariantError, PassBase
from onnx_ir.passes import common as passes

from zkml_ray.chunking.dimensions import fix_dimensions, free_inputs
from zkml_ray.chunking.finite import check_constants
from zkml_ray.chunking.lookups import Lookup, record_lookups
from zkml_ray.chunking.normal_form.attributes import DropDefaults, refuse_unread
from zkml_ray.chunking.normal_form.batchnorm import FoldBatchNorm
from zkml_ray.chunking.normal_form.branches import TakeBranches
from zkml_ray.chunking.normal_form.canonical import OneForm
from zkml_ray.chunking.normal_form.classical.table import CLASSICAL, DOMAIN, WriteClassical
from zkml_ray.chunking.normal_form.clip import DropInfiniteBounds
from zkml_ray.chunking.normal_form.constants import FoldConstants
from zkml_ray.chunking.normal_form.definitions.table import CHANGED, WRITTEN, WriteDefinitions
from zkml_ray.chunking.normal_form.einsum import PairwiseEinsum
from zkml_ray.chunking.normal_form.expanded import expand_defined
from zkml_ray.chunking.normal_form.floats import as_float32
from zkml_ray.chunking.normal_form.interface import record_inputs, without_idle_outputs
from zkml_ray.chunking.normal_form.logic import LOGIC, AsFloats
from zkml_ray.chunking.normal_form.logistic import LogisticFunction
from zkml_ray.chunking.normal_form.lookups import CutLookups, Outside
from zkml_ray.chunking.normal_form.masks import (
    GUARDS,
    AnswerGuards,
    DropKeys,
    TakeKnownChoices,
)
from zkml_ray.chunking.normal_form.meaning import CountFromTheStart, refuse_powers
from zkml_ray.chunking.normal_form.opset import OPSET, convert_opset, opset_of, with_opset
from zkml_ray.chunking.normal_form.padding import ZeroPadding
from zkml_ray.chunking.normal_form.pooling import RegularPooling
from zkml_ray.chunking.normal_form.pruned import pruned
from zkml_ray.chunking.normal_form.quantised import without_quantisation
from zkml_ray.chunking.normal_form.scans import UnrollScans
from zkml_ray.chunking.normal_form.structure import DropDropout, DropIdentity, ShareInitializers
from zkml_ray.chunking.normal_form.tails import without_tails
from zkml_ray.chunking.normal_form.transposed import ExpandTransposedConvolution
from zkml_ray.chunking.normal_form.windows import ExplicitWindows
from zkml_ray.chunking.operators import FOLDABLE, SUPPORTED
from zkml_ray.chunking.places import node_label
from zkml_ray.chunking.unique import check_names, refuse_ours
from zkml_ray.errors import ChunkingError, UnsupportedOperatorError

_REDUCIBLE = (FOLDABLE | {"If"}) - SUPPORTED
"""Operators that go once what they read is known."""

_KNOWN = SUPPORTED | FOLDABLE | WRITTEN | LOGIC | GUARDS | {"Constant", "Dropout", "If"}

_MASKED = GUARDS | {"Softmax"}

_SHOWN = 10
"""Obstacles that a message names; the rest are counted."""

IR_VERSION = 10
"""Of the normalised model, at most: onnxruntime runs no file that is newer than itself."""

SCAN_WITHOUT_BATCHES = 9
"""Version from which Scan has no axis of batches."""

_FOLDING_ROUNDS = 16
"""A chain of shape arithmetic is folded as far as shapes are known; each round knows more."""


def normalise(
    proto: onnx.ModelProto, dimensions: Mapping[str, int], *, tokens_outside: bool = False
) -> onnx.ModelProto:
    """Bring a model into the one form that chunks are cut from.

    Args:
        proto: A checked model (not changed).
        dimensions: Value of each symbolic dimension, by name.
        tokens_outside: Whether look-ups at places that are an input are left out
            (`chunking.lookups`).

    Raises:
        DynamicShapeError: A dimension has no value.
        UnsupportedOperatorError: An operator that only folding could remove is left.
        ModelFormatError: A constant is not finite.
        ChunkingError: A step found something it cannot bring into this form.
    """
    fixed = with_opset(as_float32(fix_dimensions(proto, dimensions)))
    fixed = pruned(without_tails(without_idle_outputs(without_quantisation(fixed))))
    fixed = _expanded(expand_defined(fixed))
    refuse_ours(fixed.graph)
    _refuse_unknown(fixed)
    outside = Outside() if tokens_outside else None
    model = ir.from_proto(_common(_inferred(fixed), outside))
    model = ir.from_proto(_inferred(ir.to_proto(_folded(model, OPSET))))
    _apply(model, DropInfiniteBounds(), DropIdentity(), passes.RemoveUnusedNodesPass())
    original = _constant_names(proto)
    check_constants(model, original)
    _apply(
        model,
        FoldBatchNorm(),
        passes.RemoveUnusedNodesPass(),
        ShareInitializers(),
        passes.ClearMetadataAndDocStringPass(),
        passes.TopologicalSortPass(),
        passes.NameFixPass(),
        ExplicitWindows(),
        ExpandTransposedConvolution(),
        RegularPooling(),
        ZeroPadding(),
        OneForm(),
        LogisticFunction(),
        PairwiseEinsum(),
        CountFromTheStart(),
        DropDefaults(OPSET),
        DropIdentity(),
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
    )
    check_constants(model, original)  # what BatchNormalization was taken into, too
    refuse_powers(model)
    refuse_unread(model)
    _refuse_unsupported(model)
    model.producer_name = None
    model.producer_version = None
    model.ir_version = min(model.ir_version, IR_VERSION)
    result = _inferred(ir.to_proto(model))
    lookups = outside.lookups if outside is not None else []
    if [v.name for v in result.graph.input] != _begins(fixed, lookups):
        raise ChunkingError(
            "an input of the model has the name of a tensor that is made from an operator: give it "
            "another name"
        )
    record_inputs(result, [value.name for value in free_inputs(proto)])
    if outside is not None:
        record_lookups(result, lookups, list(outside.tables.values()))
    return result


def _expanded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in ONNX's own operators and without Scan, or the same one."""
    if not any(_is_expanded(node) for node in proto.graph.node):
        return proto
    _refuse_unknown(proto)
    if opset_of(proto) < SCAN_WITHOUT_BATCHES:
        for node in proto.graph.node:
            if node.op_type == "Scan":
                raise ChunkingError(
                    f"{node_label(node)}: Scan of opset {opset_of(proto)} goes over batches, which "
                    "cannot be proved; export the model with opset 9 or later"
                )
    if opset_of(proto) < OPSET:
        proto = convert_opset(proto)
    opset = opset_of(proto)
    while found := [node for node in proto.graph.node if _is_expanded(node)]:
        model = ir.from_proto(_guessed(ir.to_proto(_folded(ir.from_proto(_guessed(proto)), opset))))
        if not _apply(model, UnrollScans(opset), WriteClassical(opset)):
            raise ChunkingError(
                f"{node_label(found[0])}: the shape of its input is not known; export the model "
                "with fixed shapes"
            )
        _apply(model, DropIdentity(), passes.RemoveUnusedNodesPass())
        proto = ir.to_proto(model)
    return pruned(proto)


def _is_expanded(node: onnx.NodeProto) -> bool:
    if node.domain == DOMAIN:
        return node.op_type in CLASSICAL
    return node.domain in ("", "ai.onnx") and node.op_type == "Scan"


def _guessed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with shapes as far as onnx knows them: not those of all classical operators."""
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def _begins(fixed: onnx.ModelProto, lookups: Sequence[Lookup]) -> list[str]:
    """Names of a normalised model's inputs: rows that are looked up in the place of where."""
    names = []
    for value in fixed.graph.input:
        rows = [each.tensor for each in lookups if each.input == value.name]
        names += rows or [value.name]
    return names


def _common(proto: onnx.ModelProto, outside: Outside | None) -> onnx.ModelProto:
    """The model in operators of the common version, without those that are written with others.

    Those that came later are written while the model still has its own version.
    """
    if opset_of(proto) > OPSET:
        own = _looked_up(_masked(_written(proto, CHANGED)), outside)
        return _inferred(convert_opset(_written(_without_logic(own), WRITTEN)))
    common = _inferred(convert_opset(_written(proto, CHANGED)))
    return _written(_without_logic(_looked_up(_masked(common), outside)), WRITTEN)


def _looked_up(proto: onnx.ModelProto, outside: Outside | None) -> onnx.ModelProto:
    """The model without look-ups at places that are an input, or the same one."""
    kinds = {value.type.tensor_type.elem_type for value in proto.graph.input}
    if outside is None or kinds <= {onnx.TensorProto.FLOAT}:
        return proto
    model = _known(proto, opset_of(proto))
    if not _apply(model, CutLookups(outside), passes.RemoveUnusedNodesPass()):
        return proto
    return _inferred(ir.to_proto(model))


def _masked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its masks in one form, or the same one."""
    opset = opset_of(proto)
    if not any(node.op_type in _MASKED for node in proto.graph.node):
        return proto
    model = _known(proto, opset)
    for step in (AnswerGuards(), DropKeys()):
        if _apply(model, step, passes.RemoveUnusedNodesPass()):
            model = _known(ir.to_proto(model), opset)
    _apply(model, TakeKnownChoices(), DropIdentity(), passes.RemoveUnusedNodesPass())
    return _inferred(ir.to_proto(model))


def _known(proto: onnx.ModelProto, opset: int) -> ir.Model:
    """The model with what follows from constants folded, and all shapes."""
    folded = _folded(ir.from_proto(_inferred(proto)), opset)
    known: ir.Model = ir.from_proto(_inferred(ir.to_proto(folded)))
    return known


def _without_logic(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in floats alone, or the same one."""
    opset = opset_of(proto)
    if not any(node.op_type in LOGIC for node in proto.graph.node) and all(
        value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in proto.graph.input
    ):
        return proto
    model = _known(proto, opset)
    _apply(model, AsFloats(opset), passes.RemoveUnusedNodesPass())
    return _inferred(ir.to_proto(model))


def _written(proto: onnx.ModelProto, operators: frozenset[str]) -> onnx.ModelProto:
    """The model without some operators that are written with others, or the same one."""
    opset = opset_of(proto)
    if not any(node.op_type in operators for node in proto.graph.node):
        return proto
    model = ir.from_proto(_inferred(ir.to_proto(_folded(ir.from_proto(proto), opset))))
    _apply(model, WriteDefinitions(opset, operators))
    return _inferred(ir.to_proto(model))


def _folded(model: ir.Model, opset: int) -> ir.Model:
    """The model with constants lifted and folded until nothing changes."""
    _apply(
        model,
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.TopologicalSortPass(),
        DropDropout(),
        DropIdentity(),
    )
    for _ in range(_FOLDING_ROUNDS):
        folded = _apply(
            model,
            FoldConstants(opset),
            TakeBranches(),
            DropIdentity(),
            passes.RemoveUnusedNodesPass(),
        )
        if not folded or not any(node.op_type in _REDUCIBLE for node in model.graph):
            break
        model = ir.from_proto(_inferred(ir.to_proto(model)))
    return model


def _constant_names(proto: onnx.ModelProto) -> frozenset[str]:
    """Names of the constants that a file has, whatever it calls them."""
    named = {tensor.name for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            named.update(node.output)
    return frozenset(named)


def _apply(model: ir.Model, *in_order: PassBase) -> bool:
    """Run passes on a model in place; whether one changed it.

    onnx_ir's Sequential would wrap our errors into its own.
    """
    modified = False
    for each in in_order:
        try:
            modified |= each(model).modified
        except InvariantError as error:
            raise ChunkingError(
                f"normalising the model failed: {error.__cause__ or error}"
            ) from error
    return modified


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    check_names(proto.graph)
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        line = str(error).strip().splitlines()[0]
        raise ChunkingError(
            f"shapes cannot be inferred with the given dimensions: {line}"
        ) from None


def _refuse_unknown(proto: onnx.ModelProto) -> None:
    """Refuse operators that can stand nowhere, all at once."""
    found = [
        f"{node.domain}.{node.op_type}".lstrip(".") + f" of {node_label(node)}"
        for node in proto.graph.node
        if not _is_expanded(node)
        and (node.domain not in ("", "ai.onnx") or node.op_type not in _KNOWN)
    ]
    if found:
        raise UnsupportedOperatorError(
            f"operators that cannot be proved: {_listed(found)}; supported operators: "
            f"{', '.join(sorted(SUPPORTED | WRITTEN))}"
        )


def _refuse_unsupported(model: ir.Model) -> None:
    """Refuse what is left of operators that can stand on constants alone, all at once."""
    found = []
    for node in model.graph:
        if node.op_type not in SUPPORTED:
            reads = ", ".join(v.name or "" for v in node.inputs if v is not None)
            found.append(f"{node.op_type} (node {node.name!r}), which reads {reads}")
    if found:
        raise UnsupportedOperatorError(
            "these operators can be used only on constants and shapes, where they are computed in "
            f"advance: {_listed(found)}"
        )


def _listed(found: list[str]) -> str:
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more

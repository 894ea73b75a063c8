"""Normalisation: one form for the graph that everything after this module relies on.

Postconditions of `normalise`, each made by a named step:

- every input has a numeric shape, every tensor an inferred one (`fix_dimensions`, shape inference);
- all operators are those of one version, `OPSET` (`normal_form.opset`);
- constants are initializers, and initializers are no graph inputs; what follows from constants
  alone is one (`normal_form.constants`); large equal ones are one;
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

from collections.abc import Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes import InvariantError, PassBase
from onnx_ir.passes import common as passes

from zkml_ray.chunking.load import fix_dimensions
from zkml_ray.chunking.normal_form.activations import ExpandGelu
from zkml_ray.chunking.normal_form.attributes import refuse_unread
from zkml_ray.chunking.normal_form.batchnorm import FoldBatchNorm
from zkml_ray.chunking.normal_form.canonical import OneForm
from zkml_ray.chunking.normal_form.constants import FoldConstants
from zkml_ray.chunking.normal_form.einsum import PairwiseEinsum
from zkml_ray.chunking.normal_form.meaning import CountFromTheStart, refuse_powers
from zkml_ray.chunking.normal_form.opset import OPSET, convert_opset
from zkml_ray.chunking.normal_form.padding import ZeroPadding
from zkml_ray.chunking.normal_form.pooling import RegularPooling
from zkml_ray.chunking.normal_form.structure import DropDropout, DropIdentity, ShareInitializers
from zkml_ray.chunking.normal_form.transposed import ExpandTransposedConvolution
from zkml_ray.chunking.normal_form.windows import ExplicitWindows
from zkml_ray.chunking.operators import EXPANDED, FOLDABLE, SUPPORTED
from zkml_ray.errors import ChunkingError, UnsupportedOperatorError

_FOLDING_ROUNDS = 16
"""A chain of shape arithmetic is folded as far as shapes are known; each round knows more."""


def normalise(proto: onnx.ModelProto, dimensions: Mapping[str, int]) -> onnx.ModelProto:
    """Bring a model into the one form that chunks are cut from.

    Args:
        proto: A checked model (not changed).
        dimensions: Value of each symbolic dimension, by name.

    Raises:
        DynamicShapeError: A dimension has no value.
        UnsupportedOperatorError: An operator that only folding could remove is left.
        ChunkingError: A step found something it cannot bring into this form.
    """
    fixed = _inferred(fix_dimensions(proto, dimensions))
    expanded = _expanded(fixed)
    converted = convert_opset(expanded)
    model = ir.from_proto(fixed if converted is fixed else _inferred(converted))
    model = _folded(model)
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
        PairwiseEinsum(),
        CountFromTheStart(),
        DropIdentity(),
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
    )
    refuse_powers(model)
    refuse_unread(model)
    _refuse_unsupported(model)
    model.producer_name = None
    model.producer_version = None
    return _inferred(ir.to_proto(model))


def _expanded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without operators that the common version lacks, or the same one."""
    if not any(node.op_type in EXPANDED for node in proto.graph.node):
        return proto
    model = ir.from_proto(proto)
    _apply(model, ExpandGelu())
    return ir.to_proto(model)


def _folded(model: ir.Model) -> ir.Model:
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
        folded = _apply(model, FoldConstants(OPSET), DropIdentity(), passes.RemoveUnusedNodesPass())
        if not folded or not any(node.op_type in FOLDABLE - SUPPORTED for node in model.graph):
            break
        model = ir.from_proto(_inferred(ir.to_proto(model)))
    return model


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
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        line = str(error).strip().splitlines()[0]
        raise ChunkingError(
            f"shapes cannot be inferred with the given dimensions: {line}"
        ) from None


def _refuse_unsupported(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type not in SUPPORTED:
            reads = ", ".join(v.name or "" for v in node.inputs if v is not None)
            raise UnsupportedOperatorError(
                f"operator {node.op_type} (node {node.name!r}) can be used only on constants and "
                f"shapes, where it is computed in advance; here it reads {reads}"
            )

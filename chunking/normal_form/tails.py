"""Post-processing at a model's end, cut off: what is proved is what it starts from.

A class is no number that a circuit could round: ArgMax of logits, a label, a comparison with a
threshold. Where an output is made by such an operator, and by nothing else from there on, the
tensor that it reads is the output in its place. The label of a classifier of ai.onnx.ml follows
from its scores, its second output. Whoever has the proved values can do the rest.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto

TAILS: Final = frozenset(
    {
        *("ArgMax", "ArgMin", "Hardmax", "TopK", "ZipMap", "Binarizer", "ArrayFeatureExtractor"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "LabelEncoder"),
        "CategoryMapper",
    }
)
_CLASSIFIERS: Final = frozenset({"LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"})
_SCORED: Final = frozenset(
    {
        *("Binarizer", "FeatureVectorizer", "Imputer", "LinearRegressor", "Normalizer", "Scaler"),
        *("SVMRegressor", "TreeEnsemble", "TreeEnsembleRegressor"),
    }
)
"""Operators of ai.onnx.ml that give floats, which onnx does not infer of all of them."""
_FLOATS: Final = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
_BETWEEN: Final = frozenset({"Cast", "Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def without_tails(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose outputs are what its post-processing starts from.

    Args:
        proto: The model (not changed).

    Returns:
        The model, or the same one if it has none; an output that would then stand twice, or be an
        input, is left out.
    """
    starts = _starts(proto)
    if all(start == output.name for output, start in zip(proto.graph.output, starts, strict=True)):
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    kept = dict(
        zip([output.name for output in proto.graph.output], proto.graph.output, strict=True)
    )
    del result.graph.output[:]
    for name in dict.fromkeys(starts):
        if name in kept:
            result.graph.output.append(kept[name])
        else:
            value = result.graph.output.add(name=name)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def tail_notices(proto: onnx.ModelProto) -> tuple[str, ...]:
    """What is proved instead of an output, a sentence each."""
    notices = []
    for output, start in zip(proto.graph.output, _starts(proto), strict=True):
        if start != output.name:
            notices.append(
                f"output {output.name} follows from {start}, which is proved in its place"
            )
    return tuple(notices)


def _starts(proto: onnx.ModelProto) -> list[str]:
    """Per output, the tensor of floats that its post-processing starts from, or itself."""
    made_by = {name: node for node in proto.graph.node for name in node.output if name}
    constant = {tensor.name for tensor in proto.graph.initializer}
    constant.update(
        name for name, node in made_by.items() if node.op_type in ("Constant", "ConstantOfShape")
    )
    inputs = {value.name for value in proto.graph.input}
    try:
        inferred = onnx.shape_inference.infer_shapes(proto).graph
    except onnx.shape_inference.InferenceError:  # it will be refused for what cannot be inferred
        return [output.name for output in proto.graph.output]
    floats = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type in _FLOATS
    }
    for node in proto.graph.node:
        if node.op_type in _CLASSIFIERS:
            floats.update(node.output[1:])
        elif node.op_type in _SCORED:
            floats.update(node.output)
    found = []
    for output in proto.graph.output:
        name = start = output.name
        while (node := made_by.get(name)) is not None:
            if node.op_type in _CLASSIFIERS and name == node.output[0] and len(node.output) > 1:
                start = node.output[1] or start
                break
            reads = [each for each in node.input if each and each not in constant]
            if len(reads) != 1 or node.op_type not in TAILS | _BETWEEN:
                break
            name = reads[0]
            if node.op_type in TAILS or _to_other_than_floats(node):
                floating = name in floats or node.op_type == "ZipMap"
                start = name if floating and name not in inputs else output.name
        found.append(start)
    return found


def _to_other_than_floats(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        attribute.name == "to" and attribute.i not in _FLOATS for attribute in node.attribute
    )

"""Operator -> definition, and the pass that writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.classical import features, linear, trees, vectors
from zkml_ray.chunking.normal_form.writer import Writer

DOMAIN: Final = "ai.onnx.ml"

CLASSICAL: Final[Mapping[str, Callable[[Writer], ir.Value | list[ir.Value | None]]]] = {
    "ArrayFeatureExtractor": features.array_feature_extractor,
    "Binarizer": features.binarizer,
    "FeatureVectorizer": features.feature_vectorizer,
    "Imputer": features.imputer,
    "LabelEncoder": features.label_encoder,
    "LinearClassifier": linear.classifier,
    "LinearRegressor": linear.regressor,
    "Normalizer": features.normaliser,
    "OneHotEncoder": features.one_hot,
    "SVMClassifier": vectors.classifier,
    "SVMRegressor": vectors.regressor,
    "Scaler": features.scaler,
    "TreeEnsemble": trees.ensemble,
    "TreeEnsembleClassifier": trees.classifier,
    "TreeEnsembleRegressor": trees.regressor,
}


class WriteClassical(InPlacePass):
    """Pre: opset 18 or later, shapes inferred as far as known, constants are initializers.

    Post: none of `CLASSICAL` whose inputs' shapes were known.
    """

    def __init__(self, opset: int) -> None:
        """Write in a version of ONNX's operators, 18 or later.

        Args:
            opset: The version.
        """
        super().__init__()
        self._opset = opset

    def call(self, model: ir.Model) -> PassResult:
        """Replace every such node."""
        modified = False
        for node in list(model.graph):
            if node.domain != DOMAIN or node.op_type not in CLASSICAL:
                continue
            if not all(_is_known(value) for value in node.inputs):
                continue
            for index, output in enumerate(node.outputs):
                if output.type is None and (len(node.outputs) == 1 or index == 1):
                    output.type = ir.TensorType(ir.DataType.FLOAT)
            write = Writer(model, node, self._opset)
            made = CLASSICAL[node.op_type](write)
            write.replace([made] if isinstance(made, ir.Value) else made)
            modified = True
        return PassResult(model, modified=modified)


def _is_known(value: ir.Value | None) -> bool:
    return value is None or (value.shape is not None and value.shape.is_static())

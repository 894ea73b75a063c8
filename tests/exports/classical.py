"""Estimators of scikit-learn, xgboost and lightgbm, fitted on random numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn import (
    cluster,
    decomposition,
    ensemble,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

from tests.exports.architecture import Architecture, collected

FEATURES = 6
_DRAWN = np.random.default_rng(0)
_X = _DRAWN.normal(size=(120, FEATURES)).astype(np.float32)
_LINEAR = _X @ _DRAWN.normal(size=FEATURES).astype(np.float32)
_CLASSES = np.digitize(_LINEAR, [-1.0, 1.0])
_BINARY = (_LINEAR > 0).astype(np.int64)


def fitted(make: Callable[[], Any], target: np.ndarray) -> tuple[Any, tuple[Any, ...]]:
    return make().fit(_X, target), (_X[:1],)


def scaled(make: Callable[[], Any]) -> Any:
    return pipeline.make_pipeline(preprocessing.StandardScaler(), make())


def export_estimator(estimator: Any, example: np.ndarray) -> onnx.ModelProto:
    """The ONNX model of a fitted estimator."""
    types = [("x", FloatTensorType([None, FEATURES]))]
    if isinstance(estimator, xgboost.XGBModel):
        return onnxmltools.convert_xgboost(estimator, initial_types=types)
    if isinstance(estimator, lightgbm.LGBMModel):
        return onnxmltools.convert_lightgbm(estimator, initial_types=types, zipmap=False)
    return to_onnx(estimator, example)


_TREES = partial(ensemble.RandomForestClassifier, 4, max_depth=3, random_state=0)
_CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic": linear_model.LogisticRegression,
    "scaled_logistic": partial(scaled, linear_model.LogisticRegression),
    "sgd": partial(linear_model.SGDClassifier, random_state=0),
    "ridge_classifier": linear_model.RidgeClassifier,
    "linear_svc": svm.LinearSVC,
    "svc_rbf": partial(svm.SVC, kernel="rbf"),
    "svc_linear": partial(svm.SVC, kernel="linear"),
    "gaussian_bayes": naive_bayes.GaussianNB,
    "nearest": partial(neighbors.KNeighborsClassifier, 3),
    "perceptrons": partial(neural_network.MLPClassifier, (8,), max_iter=20, random_state=0),
    "decision_tree": partial(tree.DecisionTreeClassifier, max_depth=3, random_state=0),
    "random_forest": _TREES,
    "extra_trees": partial(ensemble.ExtraTreesClassifier, 4, max_depth=3, random_state=0),
    "adaboost": partial(ensemble.AdaBoostClassifier, n_estimators=3, random_state=0),
    "bagging": partial(ensemble.BaggingClassifier, n_estimators=3, random_state=0),
    "gradient_boosting": partial(
        ensemble.GradientBoostingClassifier, n_estimators=4, max_depth=2, random_state=0
    ),
    "histogram_boosting": partial(
        ensemble.HistGradientBoostingClassifier, max_iter=4, max_depth=2, random_state=0
    ),
}
_REGRESSORS: dict[str, Callable[[], Any]] = {
    "linear": linear_model.LinearRegression,
    "lasso": linear_model.Lasso,
    "svr": svm.SVR,
    "perceptrons_regressor": partial(
        neural_network.MLPRegressor,
        hidden_layer_sizes=(8,),
        max_iter=20,
        activation="tanh",
        random_state=0,
    ),
    "tree_regressor": partial(tree.DecisionTreeRegressor, max_depth=3, random_state=0),
    "forest_regressor": partial(
        ensemble.RandomForestRegressor, 4, max_depth=3, random_state=0
    ),
    "boosting_regressor": partial(
        ensemble.GradientBoostingRegressor, n_estimators=4, max_depth=2, random_state=0
    ),
}  # fmt: skip
_TRANSFORMERS: dict[str, Callable[[], Any]] = {
    "min_max": preprocessing.MinMaxScaler,
    "robust": preprocessing.RobustScaler,
    "normalizer": preprocessing.Normalizer,
    "polynomial": partial(preprocessing.PolynomialFeatures, 2),
    "pca": partial(decomposition.PCA, 3),
    "k_means": partial(cluster.KMeans, 3, n_init=1, random_state=0),
}
_BOOSTED: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "xgboost_binary": partial(
        fitted, partial(xgboost.XGBClassifier, n_estimators=4, max_depth=2), _BINARY
    ),
    "xgboost_classes": partial(
        fitted, partial(xgboost.XGBClassifier, n_estimators=3, max_depth=2), _CLASSES
    ),
    "xgboost_regressor": partial(
        fitted, partial(xgboost.XGBRegressor, n_estimators=4, max_depth=2), _LINEAR
    ),
    "lightgbm_binary": partial(
        fitted, partial(lightgbm.LGBMClassifier, n_estimators=4, max_depth=2, verbose=-1), _BINARY
    ),
    "lightgbm_regressor": partial(
        fitted, partial(lightgbm.LGBMRegressor, n_estimators=4, max_depth=2, verbose=-1), _LINEAR
    ),
}

ARCHITECTURES: list[Architecture] = [
    *collected(
        "scikit-learn",
        {n: partial(fitted, make, _CLASSES) for n, make in _CLASSIFIERS.items()}
        | {n: partial(fitted, make, _LINEAR) for n, make in _REGRESSORS.items()}
        | {n: partial(fitted, make, _LINEAR) for n, make in _TRANSFORMERS.items()},
    ),
    *collected("xgboost and lightgbm", _BOOSTED),
]

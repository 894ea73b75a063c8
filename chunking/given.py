"""A model as a Python program has it: a file, its bytes, a message, a torch module, an estimator.

All of them become one ONNX model, and that is what is proved and what its digest is of. torch and
scikit-learn are not needed here: an object of theirs brings them along. What an exporter writes
beside a model, such as paths of source files, is left out, so that one version of it writes the
same bytes wherever it runs. Other versions may write others: who is to verify by the model gets
the ONNX file.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import onnx

from zkml_ray.chunking.load import LoadedModel, load_model, parse_model
from zkml_ray.errors import ConfigError, InputError


class TorchModule(Protocol):
    """A `torch.nn.Module`."""

    training: bool

    def state_dict(self) -> Any:
        """Its parameters."""

    def train(self, mode: bool = True) -> Any:
        """Set its mode."""


class SklearnEstimator(Protocol):
    """A fitted scikit-learn estimator."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Its parameters."""


ModelLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | onnx.ModelProto | TorchModule | SklearnEstimator"
)
"""What functions take for a model."""

_KINDS: Final = (
    "a path, bytes, an onnx.ModelProto, a torch.nn.Module or a fitted scikit-learn estimator"
)
_UNNAMED: Final = "model.onnx"
_PLAIN_DOMAINS: Final = ("", "ai.onnx")
_WRITTEN_OUT: Final = {"LinearClassifier", "LinearRegressor", "Scaler", "Normalizer"}
"""Operators of ai.onnx.ml that the converter can write with those of ONNX itself."""


def take_model(model: object, example: object = None) -> LoadedModel:
    """Load a model of any kind that `ModelLike` names.

    Args:
        model: The model.
        example: For a torch module: an input, several in the order of its arguments, or a mapping
            by their names; shapes are taken from it. For an estimator: rows; default: one row.

    Raises:
        InputError: It is of another kind, or cannot be exported.
        ConfigError: There is no such file, or the converter is not installed.
        ModelFormatError: It is not a valid ONNX model.
        UnsupportedOperatorError: It uses an operator that cannot be proved.
    """
    if isinstance(model, str | os.PathLike):
        return load_model(Path(model))
    if isinstance(model, bytes | bytearray | memoryview):
        return parse_model(bytes(model), _UNNAMED)
    if isinstance(model, onnx.ModelProto):
        return parse_model(model.SerializeToString(deterministic=True), _UNNAMED)
    torch, sklearn = sys.modules.get("torch"), sys.modules.get("sklearn.base")
    name = f"{type(model).__name__}.onnx"
    if torch is not None and isinstance(model, torch.nn.Module):
        return parse_model(_written(_of_torch(torch, model, example)), name)
    if sklearn is not None and isinstance(model, sklearn.BaseEstimator):
        return parse_model(_written(_of_sklearn(model, example)), name)
    raise InputError(f"model is {_called(model)}; give {_KINDS}")


def is_file(model: object) -> bool:
    """Whether a model is given as a file, which another process can read."""
    return isinstance(model, str | os.PathLike)


def as_numpy(value: Any) -> Any:
    """A torch tensor as an array; anything else as it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return value


def _of_torch(torch: Any, module: Any, example: object) -> onnx.ModelProto:
    if example is None or isinstance(example, str | os.PathLike):
        raise InputError(
            f"model is the torch module {type(module).__name__}: give its inputs as arrays or "
            "tensors, in the shapes that it is to be exported for (inputs=..., or "
            "example_inputs=... where it is verified)"
        )

    def tensor(value: object) -> Any:
        array = np.asarray(as_numpy(value))
        if array.dtype.kind not in "fiub":
            raise InputError(f"an example input is {_called(value)}; give arrays of numbers")
        return torch.from_numpy(
            np.ascontiguousarray(array.astype(np.float32) if array.dtype.kind == "f" else array)
        )

    positional: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    if isinstance(example, Mapping):
        named = {str(name): tensor(value) for name, value in example.items()}
    elif _are_several(example):
        positional = tuple(tensor(value) for value in example)  # type: ignore[attr-defined]
    else:
        positional = (tensor(example),)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _exported(torch, module, positional, named)
    except InputError:
        raise
    except Exception as error:  # torch's exporters raise whatever they meet
        raise InputError(
            f"the torch module {type(module).__name__} cannot be exported to ONNX with these "
            f"inputs: {_line(error)}"
        ) from None
    finally:
        module.train(was_training)


def _exported(
    torch: Any, module: Any, positional: tuple[Any, ...], named: Mapping[str, Any]
) -> onnx.ModelProto:
    try:
        import onnxscript  # noqa: F401  # what torch's exporter is written with
    except ImportError:
        buffer = io.BytesIO()
        arguments = (*positional, dict(named)) if named else positional
        torch.onnx.export(module, arguments, buffer, dynamo=False)
        return onnx.load_model_from_string(buffer.getvalue())
    program = torch.onnx.export(
        module, positional, kwargs=dict(named) or None, dynamo=True, verbose=False
    )
    return program.model_proto


def _of_sklearn(estimator: Any, example: object) -> onnx.ModelProto:
    name = type(estimator).__name__
    try:
        import skl2onnx
    except ImportError:
        raise ConfigError(
            f"model is the scikit-learn estimator {name}, and skl2onnx, which exports it, is not "
            "installed: pip install skl2onnx"
        ) from None
    if example is None or isinstance(example, str | os.PathLike):
        features = getattr(estimator, "n_features_in_", None)
        if not isinstance(features, int):
            raise InputError(f"the scikit-learn estimator {name} is not fitted, or give its inputs")
        rows = np.zeros((1, features), dtype=np.float32)
    else:
        rows = np.asarray(example, dtype=np.float32)
        rows = rows.reshape(1, -1) if rows.ndim == 1 else rows
    is_classifier = hasattr(estimator, "predict_proba")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto = skl2onnx.to_onnx(
                estimator,
                rows,
                initial_types=[("X", skl2onnx.common.data_types.FloatTensorType(list(rows.shape)))],
                options={"zipmap": False} if is_classifier else None,
                black_op=_WRITTEN_OUT,
            )
    except Exception as error:  # its converters raise whatever they meet
        raise InputError(
            f"the scikit-learn estimator {name} cannot be exported to ONNX: {_line(error)}"
        ) from None
    return _plain_outputs(proto)


def _plain_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out outputs that need operators of ai.onnx.ml, where others do not.

    A classifier's labels are looked up in a table of classes; the scores they follow from are not.
    """
    made_by = {name: node for node in proto.graph.node for name in node.output}

    def needs(output: str) -> list[onnx.NodeProto]:
        found, ahead, seen = [], [output], set()
        while ahead:
            node = made_by.get(ahead.pop())
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            found.append(node)
            ahead += node.input
        return found

    plain = [
        output
        for output in proto.graph.output
        if all(node.domain in _PLAIN_DOMAINS for node in needs(output.name))
    ]
    if not plain or len(plain) == len(proto.graph.output):
        return proto
    used = {id(node) for output in plain for node in needs(output.name)}
    kept = [node for node in proto.graph.node if id(node) in used]
    read = {name for node in kept for name in node.input}
    constants = [entry for entry in proto.graph.initializer if entry.name in read]
    pruned = onnx.ModelProto()
    pruned.CopyFrom(proto)
    graph = pruned.graph
    for field in ("node", "output", "initializer", "value_info"):
        graph.ClearField(field)
    graph.node.extend(kept)
    graph.output.extend(plain)
    graph.initializer.extend(constants)
    return pruned


def _written(proto: onnx.ModelProto) -> bytes:
    """The bytes of an exported model, without notes of where and from what it was made."""
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    graph = plain.graph
    annotated: list[Iterable[Any]] = [
        [plain, graph],
        graph.node,
        graph.input,
        graph.output,
        graph.value_info,
        graph.initializer,
        plain.functions,
        *(function.node for function in plain.functions),
    ]
    for entry in (entry for entries in annotated for entry in entries):
        for field in ("metadata_props", "doc_string"):
            if field in entry.DESCRIPTOR.fields_by_name:
                entry.ClearField(field)
    data: bytes = plain.SerializeToString(deterministic=True)
    return data


def _are_several(example: object) -> bool:
    """Whether an example is a sequence of inputs, not one input."""
    if not isinstance(example, Sequence) or isinstance(example, str | bytes):
        return False
    return all(getattr(value, "shape", ()) != () for value in example) and len(example) > 0


def _called(value: object) -> str:
    """An object's type in words."""
    kind = type(value)
    return "None" if value is None else f"of type {kind.__module__}.{kind.__qualname__}"


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

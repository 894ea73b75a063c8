"""The float model, run by onnxruntime: what the proved output is compared with.

Outputs are compared with those of the user's own file, so that a fault of normalisation shows.
Where onnxruntime does not run that file, those of its normalised form stand in; where it runs
neither, there is nothing to compare with. Either is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel

Floats = npt.NDArray[Any]

_INPUT_TYPES: Final[Mapping[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    **{
        f"tensor({kind.__name__})": kind
        for kind in (
            np.int8,
            np.int16,
            np.int32,
            np.int64,
            np.uint8,
            np.uint16,
            np.uint32,
            np.uint64,
        )
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The float model's outputs on one input.

    Attributes:
        values: Per output name, its value; empty where onnxruntime does not run the model.
        source: What was run; empty where nothing was.
        note: What a reader should know about it; empty where there is nothing to say.
    """

    values: Mapping[str, Floats]
    source: str
    note: str = ""


def reference_outputs(
    model: LoadedModel, graph: ModelGraph, arrays: Mapping[str, npt.NDArray[np.float32]]
) -> Reference:
    """The outputs to compare with.

    Args:
        model: The user's model.
        graph: Its normalised form.
        arrays: Per input name, float32 in the model's shape.
    """
    import onnxruntime

    by = f"onnxruntime {onnxruntime.__version__}"
    try:
        return Reference(values=_file_outputs(model, graph, arrays), source=f"{by}, the model file")
    except Exception as error:  # onnxruntime's errors have no common class
        note = f"onnxruntime does not run the model file: {_line(error)}"
    try:
        return Reference(
            values=float_outputs(graph, arrays),
            source=f"{by}, the normalised model",
            note=f"{note}; its normalised form was run instead",
        )
    except Exception:
        return Reference(values={}, source="", note=note)


def float_outputs(
    graph: ModelGraph, arrays: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Run a normalised model in float32.

    Args:
        graph: The model.
        arrays: Per input name, float32 in the model's shape.

    Returns:
        Per output name, its value.
    """
    return float_tensors(graph, arrays, graph.outputs)


def float_tensors(
    graph: ModelGraph, arrays: Mapping[str, npt.NDArray[np.float32]], names: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Values of any of a normalised model's tensors, in float32.

    Args:
        graph: The model.
        arrays: Per input name, float32 in the model's shape.
        names: Inputs, outputs or intermediate tensors.

    Returns:
        Per name, its value.
    """
    made = [name for name in names if name not in arrays]
    proto = graph.proto
    if missing := [name for name in made if name not in graph.outputs]:
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        for name in missing:
            proto.graph.output.append(
                onnx.helper.make_tensor_value_info(
                    name, onnx.TensorProto.FLOAT, list(graph.tensor(name).shape)
                )
            )
    if not made:
        return {name: arrays[name] for name in names}
    session = _session(proto.SerializeToString())
    feeds = {name: arrays[name] for name in graph.inputs}
    results = dict(zip(made, session.run(made, feeds), strict=True))
    return {name: results[name] if name in results else arrays[name] for name in names}


def _file_outputs(
    model: LoadedModel, graph: ModelGraph, arrays: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, Floats]:
    """Outputs of the user's file, those that its normalised form has, too."""
    session = _session(_with_outputs(model, graph.outputs))
    feeds = {
        given.name: arrays[given.name].astype(_INPUT_TYPES[given.type])
        if given.name in arrays
        else _nothing(given)
        for given in session.get_inputs()
    }
    made = [output.name for output in session.get_outputs() if output.name in graph.outputs]
    return dict(zip(made, session.run(made, feeds), strict=True))


def _nothing(given: Any) -> Floats:
    """Zeros for an input that no output depends on, which onnxruntime asks for all the same."""
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    return np.zeros(shape, dtype=_INPUT_TYPES.get(given.type, np.object_))


def _with_outputs(model: LoadedModel, names: Sequence[str]) -> bytes:
    """The file, with tensors for outputs that it computes on the way to its own."""
    own = {output.name for output in model.proto.graph.output}
    made = {name for node in model.proto.graph.node for name in node.output}
    missing = [name for name in names if name not in own and name in made]
    if not missing:
        return model.data
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    data: bytes = proto.SerializeToString()
    return data


def _session(data: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if b"QuantizeLinear" in data:
        # What it fuses them into adds products of bytes up in 16 bits on some processors.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

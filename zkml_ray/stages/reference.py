"""The float model, run by onnxruntime: what the proved output is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from zkml_ray.chunking.graph import ModelGraph


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
    import onnxruntime

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
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results = dict(zip(made, session.run(made, dict(arrays)), strict=True)) if made else {}
    return {name: results[name] if name in results else arrays[name] for name in names}

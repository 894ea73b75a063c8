"""The float model, run by onnxruntime: what the proved output is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results = session.run(list(graph.outputs), dict(arrays))
    return dict(zip(graph.outputs, results, strict=True))

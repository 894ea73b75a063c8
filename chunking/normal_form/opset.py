"""One operator set for every model.

Version 18: the first in which all reductions take their axes as an input and Split states how many
parts it makes, the one that PyTorch's exporter writes, and, tried operator by operator, accepted by
ezkl 23.0.5 (tract) in every form that a converted model can have. 13 to 23 are accepted alike, so a
later one would gain nothing.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import version_converter

from zkml_ray.errors import ChunkingError

OPSET: Final = 18


def convert_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model's operators to `OPSET`. Exact.

    Args:
        proto: A model (not changed).

    Returns:
        The converted model, or the same one if it has that version.

    Raises:
        ChunkingError: An operator has no form in that version.
    """
    versions = [int(e.version) for e in proto.opset_import if e.domain in ("", "ai.onnx")]
    if versions == [OPSET]:
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ChunkingError(
            f"the model's operators (opset {versions[0] if versions else 'missing'}) cannot be "
            f"converted to opset {OPSET}: {line}; export the model with opset {OPSET}"
        ) from None

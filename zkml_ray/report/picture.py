"""A revealed input as a picture, where its shape is that of one."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

_MAX_SIDE = 1024
_MIN_SIDE = 4


def picture(shape: Sequence[int], values: Sequence[float]) -> str | None:
    """A PNG as a data URI, or None where the tensor is no single image.

    Images have 1 or 3 channels and two sides of at least 4, channels first as ONNX has them, or
    last; dimensions of 1 in front do not count. Values are scaled from their least to their
    largest.

    Args:
        shape: The tensor's dimensions.
        values: Its values, flat and row-major.
    """
    dims = list(shape)
    while len(dims) > 2 and dims[0] == 1:
        dims.pop(0)
    array = np.asarray(values, dtype=np.float64)
    if len(dims) == 3 and dims[0] == 3:
        array = np.moveaxis(array.reshape(dims), 0, -1)
    elif len(dims) == 3 and dims[2] == 3:
        array = array.reshape(dims)
    elif len(dims) == 3 and dims[2] == 1:
        array = array.reshape(dims[:2])
    elif len(dims) == 2:
        array = array.reshape(dims)
    else:
        return None
    height, width = array.shape[:2]
    if not (_MIN_SIDE <= height <= _MAX_SIDE and _MIN_SIDE <= width <= _MAX_SIDE):
        return None
    low, high = float(array.min()), float(array.max())
    scaled = np.zeros_like(array) if high == low else (array - low) / (high - low)
    pixels = np.round(scaled * 255).astype(np.uint8)
    encoded = base64.b64encode(_png(pixels.reshape(height, width, -1))).decode()
    return f"data:image/png;base64,{encoded}"


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """PNG (ISO/IEC 15948) of 8-bit grey or RGB pixels of shape (height, width, 1 or 3)."""
    height, width, channels = pixels.shape

    def block(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    return (
        b"\x89PNG\r\n\x1a\n"
        + block(b"IHDR", header)
        + block(b"IDAT", zlib.compress(lines, 9))
        + block(b"IEND", b"")
    )

"""Weights that lie in other files: read once, checked, and put into the model.

What is read is part of the model's bytes from then on, so the model's digest, and with it the
plan's, stands for it. A file that names its weights' place could name any file, so:

- a place is the name of a file in the model file's own folder or below it, never absolute, never
  with "..", and never the current directory's;
- a link leads no further than its own folder, or than the folder that the model file's own link
  leads to: so do the caches that keep a model as links beside each other into one folder of blobs;
- only regular files are read, and of them as many bytes as the tensor's shape takes;
- all of it together fits a protobuf message (`MAX_MODEL_BYTES`), which is known before it is read.

Specification: onnx/docs/ExternalData.md. Of its keys `checksum` and others are not used: the
digest is over all that is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

import onnx

from zkml_ray.chunking.places import TensorPlace
from zkml_ray.errors import ModelFormatError

MAX_MODEL_BYTES: Final = (1 << 31) - 1
"""Most bytes of a model with all its weights: a protobuf message has no more."""

_BITS: Final = {
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT8", "UINT8", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ"), 8),
    **dict.fromkeys(("FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"), 8),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
    "COMPLEX128": 128,
}
"""Bits of an element in raw data; elements of less than a byte are packed."""


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's data lies in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def embed(places: Sequence[TensorPlace], model_path: Path | None, room_bytes: int) -> None:
    """Read tensors' data from other files and put it into them.

    Args:
        places: Tensors whose data lies in other files.
        model_path: The model file, as its user named it; None: there are no other files.
        room_bytes: How many bytes all of it together may have.

    Raises:
        ModelFormatError: A file is missing, too short or elsewhere, or a tensor does not say what
            it takes of it.
    """
    for place in places:
        if model_path is None:
            raise ModelFormatError(
                f"{place.where} lies in another file, and here is none; give the model as a file, "
                "in its folder"
            )
        room_bytes -= _size_bytes(place)
        if room_bytes < 0:
            raise ModelFormatError(
                f"with its weights from other files the model has more than {MAX_MODEL_BYTES} "
                "bytes, the most that are read"
            )
    for place in places:
        if model_path is not None:
            data = _read(place, model_path)
            place.tensor.raw_data = data
            place.tensor.ClearField("data_location")
            place.tensor.ClearField("external_data")


def _size_bytes(place: TensorPlace) -> int:
    """How many bytes a tensor's data has."""
    tensor = place.tensor
    known = {value: name for name, value in onnx.TensorProto.DataType.items()}
    bits = _BITS.get(known.get(tensor.data_type, ""))
    if bits is None:
        kind = known.get(tensor.data_type, str(tensor.data_type))
        raise ModelFormatError(f"{place.where}: data of type {kind} cannot lie in another file")
    count = 1
    for size in tensor.dims:
        if size < 0:
            raise ModelFormatError(f"{place.where} has a negative dimension: {list(tensor.dims)}")
        count *= size
    return -(-count * bits // 8)


def _read(place: TensorPlace, model_path: Path) -> bytes:
    entries: dict[str, str] = {}
    for entry in place.tensor.external_data:
        if entry.key in entries:
            raise ModelFormatError(f"{place.where}: its other file's {entry.key} is given twice")
        entries[entry.key] = entry.value
    size_bytes = _size_bytes(place)
    offset = _number(place, "offset", entries.get("offset", "0"))
    length = _number(place, "length", entries.get("length", str(size_bytes)))
    if length != size_bytes:
        raise ModelFormatError(
            f"{place.where} takes {length} bytes of another file, but its shape "
            f"{list(place.tensor.dims)} needs {size_bytes}"
        )
    location = entries.get("location", "")
    try:
        path = _path(place, location, model_path)
        data, file_bytes = _bytes_of(path, offset, length)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelFormatError(
            f"{place.where} lies in {location!r}, which cannot be read: {reason}"
        ) from None
    if len(data) != length:
        raise ModelFormatError(
            f"{place.where} takes {length} bytes from byte {offset} of {location!r}, which has "
            f"{file_bytes}: the file is damaged or another model's"
        )
    return data


def _number(place: TensorPlace, key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ModelFormatError(
            f"{place.where}: its other file's {key} is {text[:40]!r}, not a number of bytes"
        )
    return int(text)


def _path(place: TensorPlace, location: str, model_path: Path) -> Path:
    """The file that a tensor names, where it may name it."""
    folder = model_path.parent
    both = (PurePosixPath(location), PureWindowsPath(location))
    if not location or "\0" in location or any(path.anchor or ".." in path.parts for path in both):
        raise ModelFormatError(
            f"{place.where} lies in {location[:200]!r}: weights are read from the model file's own "
            "folder alone"
        )
    path = folder / location
    if not path.exists():
        raise ModelFormatError(
            f"{place.where} lies in {location!r}, which is not beside {model_path.name}: put the "
            "file there, under that name"
        )
    allowed = (folder.resolve(), model_path.resolve().parent)
    if not any(path.resolve().is_relative_to(each) for each in allowed):
        raise ModelFormatError(
            f"{place.where} lies in {location!r}, a link out of the model file's folder: put a "
            "copy of the file there"
        )
    return path


def _bytes_of(path: Path, offset: int, length: int) -> tuple[bytes, int]:
    """Bytes of a regular file, and how many it has."""
    # Without O_NONBLOCK a named pipe would be waited for.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if offset + length > status.st_size:
            return b"", status.st_size
        file.seek(offset)
        return file.read(length), status.st_size

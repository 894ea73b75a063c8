"""The model's input: read, checked, quantised.

Accepted: a path to .json (ezkl's `input_data` form, or the input that a run stored), .npy or .npz,
or arrays (one, a sequence in input order, or a mapping by input name). Nothing is cast silently
except integers and float64 to float32, which the quantisation that follows makes harmless.
"""

from __future__ import annotations

import json
import secrets
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from zkml_ray.chunking.given import as_numpy
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.errors import InputError, ManifestError
from zkml_ray.schema.manifest import InputSource
from zkml_ray.schema.request import StoredInput, StoredTensor

Array: TypeAlias = npt.NDArray[np.float32]
Arrays: TypeAlias = dict[str, Array]
Inputs: TypeAlias = "str | Path | npt.ArrayLike | Mapping[str, npt.ArrayLike] | None"

DEFAULT_SEED = 0
MAX_SEED = (1 << 53) - 1  # the manifest records it as a JSON number


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """A checked input.

    Attributes:
        arrays: Per input name, float32, in the model's shape; those that circuits begin with among
            them, where they are rows that are looked up.
        source: Where it came from.
    """

    arrays: Arrays
    source: InputSource


def read_inputs(graph: ModelGraph, inputs: Inputs, *, seed: int = DEFAULT_SEED) -> ModelInput:
    """Read and check a model's input.

    Args:
        graph: The normalised model.
        inputs: A path, arrays, or None for a seeded random input.
        seed: Seed of the random input (uniform in [0, 1)).

    Raises:
        InputError: No such file, unknown format, wrong names, shape or dtype, NaN or infinity.
    """
    if inputs is None:
        if not 0 <= seed <= MAX_SEED:
            raise InputError(f"seed must lie in 0..{MAX_SEED}, not {seed}")
        generator = np.random.default_rng(seed)
        arrays = {name: _random(graph, name, generator) for name in graph.asked}
        return ModelInput(
            arrays=with_rows(graph, arrays), source=InputSource(kind="random", seed=seed)
        )
    found = _read_path(Path(inputs)) if isinstance(inputs, str | Path) else inputs
    named = _by_name(graph, found)
    arrays = {name: _checked(graph, name, named[name]) for name in graph.asked}
    return ModelInput(arrays=with_rows(graph, arrays), source=InputSource(kind="given"))


def with_rows(graph: ModelGraph, arrays: Arrays) -> Arrays:
    """A user's arrays, and the rows that are looked up at their places.

    Raises:
        InputError: A place is no row of its table.
    """
    found = dict(arrays)
    for lookup in graph.lookups:
        table = numpy_helper.to_array(graph.initializers[lookup.table])
        places = arrays[lookup.input].astype(np.float64)
        wrong = (places != np.floor(places)) | (places < 0) | (places >= len(table))
        if wrong.any():
            raise InputError(
                f"input {lookup.input}: element {int(np.argmax(wrong.ravel()))} is "
                f"{places.ravel()[int(np.argmax(wrong.ravel()))]:g}; a row of its table was "
                f"expected, 0 to {len(table) - 1}"
            )
        rows = table[places.astype(np.int64).ravel()]
        found[lookup.tensor] = rows.reshape(graph.tensor(lookup.tensor).shape)
    return found


def _random(graph: ModelGraph, name: str, generator: np.random.Generator) -> Array:
    """Numbers in [0, 1), or places of a table."""
    for lookup in graph.lookups:
        if lookup.input == name:
            rows = graph.initializers[lookup.table].dims[0]
            shape = graph.tensor_shape(name)
            return generator.integers(rows, size=shape).astype(np.float32)
    return generator.random(graph.tensor_shape(name), dtype=np.float32)


def store_form(run_id: str, arrays: Arrays) -> StoredInput:
    """The document form of a checked input."""
    return StoredInput(
        run_id=run_id,
        salt=secrets.token_hex(32),
        tensors=tuple(
            StoredTensor(name=name, values=tuple(float(v) for v in array.ravel()))
            for name, array in arrays.items()
        ),
    )


def from_store_form(graph: ModelGraph, stored: StoredInput) -> Arrays:
    """The arrays of a stored input.

    Raises:
        InputError: It is not an input of this model.
    """
    named = {tensor.name: list(tensor.values) for tensor in stored.tensors}
    return read_inputs(graph, named).arrays


def quantise(
    name: str, array: npt.NDArray[np.float32], scale: int, packing: PackingSpec
) -> list[int]:
    """Quantise a tensor: round(x * 2^scale), halves away from zero, flat and row-major.

    Args:
        name: For error messages.
        array: Finite values.
        scale: log2 of the fixed-point denominator.
        packing: Gives the range.

    Raises:
        InputError: A value is outside the quantised range.
    """
    scaled = array.astype(np.float64).ravel() * float(1 << scale)
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    worst = int(np.argmax(np.abs(rounded)))
    if abs(rounded[worst]) > packing.element_bound:
        limit = packing.element_bound / (1 << scale)
        raise InputError(
            f"input {name}: element {worst} is {array.ravel()[worst]:g}, outside the quantised "
            f"range of +-{limit:g} at scale {scale}; normalise the input, or use a smaller "
            "--scale or, for hinted circuits, a larger --range-bits"
        )
    return [int(value) for value in rounded]


def _read_path(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no such input file: {path}")
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            return _read_json(path)
        if suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
            return loaded if suffix == ".npy" else _named_or_in_order(dict(loaded))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from None
    raise InputError(f"{path.name}: inputs are read from .json, .npy or .npz, not {suffix or '?'}")


def _named_or_in_order(arrays: dict[str, Any]) -> Any:
    """The arrays of an .npz file; those that numpy named arr_0, arr_1 ... are in input order."""
    usual = [f"arr_{index}" for index in range(len(arrays))]
    return [arrays[name] for name in usual] if set(arrays) == set(usual) else arrays


def _read_json(path: Path) -> list[Any] | dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except RecursionError:
        raise InputError(f"{path.name} is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path.name} is not JSON: {error}") from None
    if isinstance(document, dict) and "tensors" in document:
        try:
            stored = StoredInput.parse(path.read_bytes(), what=path.name)
        except ManifestError as error:
            raise InputError(str(error)) from None
        return {tensor.name: list(tensor.values) for tensor in stored.tensors}
    if not isinstance(document, dict) or not isinstance(document.get("input_data"), list):
        raise InputError(
            f'{path.name} must look like {{"input_data": [[numbers of the first input], ...]}}'
        )
    return list(document["input_data"])


def _by_name(graph: ModelGraph, found: Any) -> dict[str, Any]:
    if isinstance(found, Mapping):
        missing = [name for name in graph.asked if name not in found]
        extra = [str(name) for name in found if name not in graph.given]
        if missing or extra:
            raise InputError(
                f"the model's inputs are {', '.join(graph.asked)}; missing: "
                f"{', '.join(missing) or 'none'}, unknown: {', '.join(extra) or 'none'}"
            )
        return {name: found[name] for name in graph.asked}
    if graph.unread and isinstance(found, list | tuple) and len(found) == len(graph.given):
        # One input's own numbers may be as many as the inputs are.
        first, *more = graph.asked
        if more or _size(found) != int(np.prod(graph.tensor_shape(first))):
            return {n: v for n, v in zip(graph.given, found, strict=True) if n in graph.asked}
    if len(graph.asked) == 1:
        (name,) = graph.asked
        is_list_of_one = isinstance(found, list | tuple) and len(found) == 1
        is_wrapped = is_list_of_one and _shape_of(found) != graph.tensor_shape(name)
        return {name: found[0] if is_wrapped else found}
    if not isinstance(found, Sequence) or len(found) != len(graph.asked):
        raise InputError(
            f"the model has {len(graph.asked)} inputs ({', '.join(graph.asked)}): give as many "
            "arrays, in that order, or by name"
        )
    return dict(zip(graph.asked, found, strict=True))


def _shape_of(value: Any) -> tuple[int, ...] | None:
    try:
        return tuple(np.shape(as_numpy(value)))
    except ValueError:
        return None


def _size(value: Any) -> int | None:
    shape = _shape_of(value)
    return None if shape is None else int(np.prod(shape))


def _checked(graph: ModelGraph, name: str, value: Any) -> npt.NDArray[np.float32]:
    shape = graph.tensor_shape(name)
    try:
        array = np.asarray(as_numpy(value))
    except ValueError as error:
        raise InputError(f"input {name} is not one array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":  # truth values are what some models read: 0 or 1
        raise InputError(f"input {name} has dtype {array.dtype}; numbers (float32) are expected")
    count = int(np.prod(shape))
    flat_form = array.ndim == 1 or array.shape == (1, count)
    if array.shape != shape and not (flat_form and array.size == count):
        raise InputError(
            f"input {name} has shape {list(array.shape)}; the model expects {list(shape)} "
            f"({count} numbers)"
        )
    floats = array.astype(np.float64).reshape(shape)
    if not np.isfinite(floats).all():
        where = int(np.argmax(~np.isfinite(floats.ravel())))
        raise InputError(f"input {name}: element {where} is NaN or infinite")
    with np.errstate(over="ignore"):
        result = floats.astype(np.float32)
    if not np.isfinite(result).all():
        where = int(np.argmax(~np.isfinite(result.ravel())))
        raise InputError(f"input {name}: element {where} does not fit float32")
    return result

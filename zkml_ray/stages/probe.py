"""Settings as an oracle: what ezkl would make of a piece of the model, remembered on this machine.

A probe's settings are used to choose, never to prove: the circuits that are proved, and those that
a verifier re-builds, have settings that were derived anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from zkml_ray.canonical import document_digest, sha256_hex
from zkml_ray.circuits import backend
from zkml_ray.config import cache_dir
from zkml_ray.errors import StageError
from zkml_ray.events import Listener, Working, ignore
from zkml_ray.machine import cores
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.scratch import scratch_folder

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def probe(onnx: bytes, arguments: CircuitArguments) -> backend.Settings:
    """The settings of a chunk model.

    Args:
        onnx: The model.
        arguments: Its circuit arguments.

    Raises:
        StageError: ezkl cannot express it.
    """
    name = document_digest(
        {
            "ezkl": backend.EZKL_VERSION,
            "onnx": sha256_hex(onnx),
            "arguments": arguments.model_dump(mode="json"),
        }
    )
    path = cache_dir() / "probes" / f"{name}.json"
    try:
        return backend.Settings.read(path.read_bytes())
    except (OSError, ValueError, KeyError):
        pass
    with scratch_folder() as folder:
        model = folder / "piece.onnx"
        model.write_bytes(onnx)
        settings = backend.derive_settings(model, arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as made:
        made.write(settings.data)
    Path(made.name).replace(path)
    return settings


def lookup_range(input_scale: int) -> tuple[int, int]:
    """Inputs that a circuit's tables admit: real numbers up to almost 8 on both sides.

    A little less than 8, because a table of 2^k + 1 rows would double the circuit's length.

    Args:
        input_scale: log2 of the fixed-point denominator.
    """
    bound = (8 << input_scale) - max(8, (8 << input_scale) >> 7)
    return -bound, bound


def each(
    work: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    *,
    listener: Listener = ignore,
    what: str = "",
) -> list[ResultT]:
    """Results of independent probes, in order, several at a time.

    Every probe waits for a process of its own, so threads are enough.

    Args:
        work: Makes one.
        items: What of.
        listener: Told how far it is.
        what: What is done, for people.
    """
    found: list[ResultT] = []
    with ThreadPoolExecutor(max_workers=cores()) as threads:
        for result in threads.map(work, items):
            found.append(result)
            listener(Working(what=what, done=len(found), total=len(items)))
    return found


def probed_or_reason(onnx: bytes, arguments: CircuitArguments) -> backend.Settings | str:
    """The settings, or why there are none."""
    try:
        return probe(onnx, arguments)
    except StageError as error:
        return error.message

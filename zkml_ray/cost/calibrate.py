"""Measuring a machine: prove the designed set of circuits, fit the prices.

Every circuit is set up and proved in processes of its own, on one thread. Seconds are CPU
seconds, the least of the repeats: what else the machine does disturbs them less than wall time.
How far threads help is measured on one circuit, on the wall clock; on a busy machine it comes out
too low.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from zkml_ray import machine
from zkml_ray.circuits import backend
from zkml_ray.circuits.srs import ensure_srs
from zkml_ray.cost.fit import fit_prices
from zkml_ray.cost.geometry import Geometry
from zkml_ray.cost.load import geometry_of
from zkml_ray.cost.model import price
from zkml_ray.cost.profiles import shipped_profile
from zkml_ray.cost.samples import SAMPLES, Sample, chunk_model
from zkml_ray.errors import StageError
from zkml_ray.schema.profile import Prices, Profile
from zkml_ray.scratch import scratch_folder

REPEATS: Final = 2

BUSY: Final = 1.1
"""A one-threaded proof that takes this much longer than its CPU time shares its core."""

_THREADS_SAMPLE: Final = Sample(kind="deep", size=64, count=5, logrows=11, columns=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one circuit took, on one thread.

    Attributes:
        geometry: Its columns.
        prove_core_s: CPU seconds of proving.
        setup_core_s: CPU seconds of compiling and making keys.
        prove_bytes: Growth of the resident set while the witness was made and proved.
        setup_bytes: The same while the keys were made.
        proof_bytes: Length of the proof.
    """

    geometry: Geometry
    prove_core_s: float
    setup_core_s: float
    prove_bytes: int
    setup_bytes: int
    proof_bytes: int


def calibrate(
    *,
    worker_bytes: int,
    samples: Sequence[Sample] = SAMPLES,
    tell: Callable[[str], None] = lambda _line: None,
) -> tuple[Profile, list[Measured]]:
    """Measure this machine.

    Args:
        worker_bytes: Resident set of an idle worker.
        samples: What to measure.
        tell: Told of every measurement.

    Raises:
        StageError: A circuit could not be measured.
    """
    measured = []
    for number, sample in enumerate(samples, start=1):
        found = measure(*chunk_model(sample), sample.arguments())
        measured.append(found)
        tell(
            f"{number}/{len(samples)} {sample.kind} {sample.size}, logrows {sample.logrows}, "
            f"{sample.columns} columns: proved in {found.prove_core_s:.2f} core-seconds"
        )
    serial = _serial_share()
    if serial is None:
        serial = shipped_profile().serial_share
        tell("the machine is too busy to see how far threads help; the shipped profile's is taken")
    tell(f"share of proving that threads do not help: {serial:.2f}")
    profile = Profile(
        machine=describe_machine(),
        ezkl_version=backend.EZKL_VERSION,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        samples=len(measured),
        prove_core_s=fit_prices([(m.geometry, m.prove_core_s) for m in measured]),
        setup_core_s=fit_prices([(m.geometry, m.setup_core_s) for m in measured]),
        prove_bytes=fit_prices([(m.geometry, m.prove_bytes) for m in measured]),
        setup_bytes=fit_prices([(m.geometry, m.setup_bytes) for m in measured]),
        serial_share=serial,
        worker_bytes=worker_bytes,
        chunk_s=shipped_profile().chunk_s,
    )
    return profile, measured


def measure(data: bytes, tensors: list[list[int]], arguments: Any) -> Measured:
    """Set up and prove one chunk model in processes of their own.

    Args:
        data: The chunk model.
        tensors: Its inputs, field elements.
        arguments: Its circuit arguments.

    Raises:
        StageError: It does not fit its logrows, or a process failed.
    """
    with scratch_folder() as folder:
        settings = _prepare(folder, data, tensors, arguments)
        srs = ensure_srs(arguments.logrows).path
        setup = _child(folder, srs, "setup", 1, 1)
        prove = _child(folder, srs, "prove", REPEATS, 1)
    return Measured(
        geometry=geometry_of(settings.data),
        prove_core_s=min(prove["cpu_s"]),
        setup_core_s=min(setup["cpu_s"]),
        prove_bytes=prove["grown_bytes"],
        setup_bytes=setup["grown_bytes"],
        proof_bytes=prove["proof_bytes"],
    )


def median_error(measured: Sequence[tuple[Geometry, float]], prices: Prices) -> float:
    """Median relative difference between predicted and measured."""
    return statistics.median(abs(price(g, prices) / cost - 1) for g, cost in measured)


def describe_machine() -> str:
    """What a profile says it was measured on."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{cpu}, {machine.cores()} cores, {platform.system()}"


def _serial_share() -> float | None:
    """Amdahl's share from one proof on one thread and on all; None where other work disturbs it."""
    cores = machine.cores()
    if cores == 1:
        return 0.0
    data, tensors = chunk_model(_THREADS_SAMPLE)
    arguments = _THREADS_SAMPLE.arguments()
    with scratch_folder() as folder:
        _prepare(folder, data, tensors, arguments)
        srs = ensure_srs(arguments.logrows).path
        _child(folder, srs, "setup", 1, cores)
        alone = _child(folder, srs, "prove", REPEATS, 1)
        if alone["wall_s"] > BUSY * min(alone["cpu_s"]) or os.getloadavg()[0] > 1.5:
            return None
        together = _child(folder, srs, "prove", REPEATS, cores)
    share: float = (together["wall_s"] / alone["wall_s"] - 1 / cores) / (1 - 1 / cores)
    return min(1.0, max(0.0, share))


def _prepare(
    folder: Path, data: bytes, tensors: list[list[int]], arguments: Any
) -> backend.Settings:
    (folder / "chunk.onnx").write_bytes(data)
    settings = backend.derive_settings(folder / "chunk.onnx", arguments)
    if settings.poseidon_rows + backend.BLINDING_ROWS > 1 << arguments.logrows:
        raise StageError(
            f"a sample needs {settings.poseidon_rows} hash rows, more than 2^{arguments.logrows}",
            stage="setup",
        )
    (folder / "settings.json").write_bytes(settings.data)
    (folder / "input.json").write_text(json.dumps(tensors))
    return settings


def _child(folder: Path, srs: Path, action: str, repeats: int, threads: int) -> dict[str, Any]:
    command = ["-m", "zkml_ray.cost.measure_child", str(folder), str(srs), action, str(repeats)]
    done = subprocess.run(
        [sys.executable, *command],
        env={
            **os.environ,
            "RAYON_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise StageError(f"measuring failed ({action}): {lines[-1]}", stage=action)
    found: dict[str, Any] = json.loads(done.stdout)
    return found

"""The proving backend: every call into ezkl goes through here.

ezkl reports errors as RuntimeError and, for some bad circuits, panics: a panic reaches Python as
`pyo3_runtime.PanicException`, a BaseException, after its stack trace went to file descriptor 2.
Both leave here as `BackendError` with ezkl's own words; the trace is swallowed.

Settings are made canonical (time stamp 0, range checks and lookups sorted, RFC 8785) because
`ezkl.gen_settings` gives them in the order of a hash map: the same circuit would otherwise have
two settings files and two keys. The order decides the order of table columns in the circuit, so
the canonical file is the one that is compiled. They are made on one thread, because on several
ezkl counts rows in a race (`_gen_settings`).

Fixed here, and not a plan's choice, because soundness depends on it (docs/security.md):
private inputs, outputs hashed with the hash public, weights fixed in the verifying key, range
checks of inputs on, Freivalds' argument off (docs/adr/0013).
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import ezkl

from zkml_ray.canonical import canonical_json
from zkml_ray.circuits.hinted_settings import hinted_settings
from zkml_ray.commitments.field import decode, encode
from zkml_ray.errors import ConfigError, OutOfMemoryError, RangeExceededError, StageError
from zkml_ray.schema.plan import CircuitArguments
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.scratch import process_folder, scratch_folder

EZKL_VERSION: Final[str] = "23.0.5"
"""The only version whose settings, keys and proofs this package understands."""

BLINDING_ROWS: Final[int] = 8
"""Rows at the end of every column that halo2 keeps for blinding, rounded up."""

_RANGE_PROBLEM = re.compile(
    r"decomposition|out of range|TableOOR|too large|value.*range|lookup", re.IGNORECASE
)

_log = logging.getLogger(__name__)


def _own_tables() -> None:
    """Let ezkl keep lookup tables in a folder of this process.

    ezkl caches every table that it makes below `EZKL_REPO_PATH` (by default the user's home), by
    name, and believes what it finds there: whoever can write to that folder would decide what a
    rebuilt verifying key admits, and processes that make the same table at once read each other's
    unfinished files.
    """
    folder = process_folder() / "tables"
    folder.mkdir()
    os.environ["EZKL_REPO_PATH"] = str(folder)


_own_tables()


class _Reasons(logging.Handler):
    """Keeps what ezkl logs as errors: its exceptions often say only "General synthesis error"."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


_reasons = _Reasons()
logging.getLogger("ezkl").addHandler(_reasons)


class BackendError(StageError):
    """ezkl refused or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is read from a canonical settings file.

    Attributes:
        data: The file's canonical bytes.
        num_rows: Rows of the main region, before they are split over column blocks.
        poseidon_rows: Rows of the hash region.
        output_scales: Scale of every output tensor, in order.
        input_scales: Scale of every input tensor, in order.
        instance_count: Public instances (one per hashed output).
        has_lookups: Whether the circuit uses lookup tables.
        range_widths: Number of values of every range check's table.
    """

    data: bytes
    num_rows: int
    poseidon_rows: int
    output_scales: tuple[int, ...]
    input_scales: tuple[int, ...]
    instance_count: int
    has_lookups: bool
    range_widths: tuple[int, ...]

    @classmethod
    def read(cls, data: bytes) -> Settings:
        """Read canonical settings bytes."""
        raw: dict[str, Any] = json.loads(data)
        poseidon = raw["module_sizes"]["poseidon"]
        return cls(
            data=data,
            num_rows=raw["num_rows"],
            poseidon_rows=poseidon[0],
            output_scales=tuple(raw["model_output_scales"]),
            input_scales=tuple(raw["model_input_scales"]),
            instance_count=sum(poseidon[1]),
            has_lookups=bool(raw["required_lookups"]),
            range_widths=tuple(high - low + 1 for low, high in raw["required_range_checks"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitWitness:
    """What a circuit's forward pass gives.

    Attributes:
        outputs: Per output tensor, its field elements (canonical ints): the packed leaves.
        hashes: Per output tensor, ezkl's Poseidon hash of it: the public instances.
        lookup_inputs: Smallest and largest value that entered a lookup table.
    """

    outputs: list[list[int]]
    hashes: list[int]
    lookup_inputs: tuple[int, int]


def check_version() -> None:
    """Refuse to work with another ezkl than the pinned one.

    Raises:
        ConfigError: Another version is installed.
    """
    installed = metadata.version("ezkl")
    if installed != EZKL_VERSION:
        raise ConfigError(
            f"ezkl {installed} is installed; keys and proofs here are those of ezkl "
            f"{EZKL_VERSION}: pip install ezkl=={EZKL_VERSION}"
        )


def run_args(arguments: CircuitArguments) -> Any:
    """Ezkl's run arguments for a chunk circuit.

    Args:
        arguments: The plan's choices; everything else is fixed here.
    """
    args = ezkl.PyRunArgs()
    hinted = arguments.kind == "hinted"
    args.input_visibility = "polycommit" if hinted else "private"
    args.output_visibility = "hashed/public"
    args.param_visibility = "fixed"
    args.ignore_range_check_inputs_outputs = False
    args.rebase_frac_zero_constants = True
    args.bounded_log_lookup = False
    args.disable_freivalds = True
    args.check_mode = "unsafe"
    args.input_scale = 0 if hinted else arguments.input_scale
    args.param_scale = arguments.param_scale
    args.scale_rebase_multiplier = arguments.scale_rebase_multiplier
    args.decomp_base = arguments.decomp_base
    args.decomp_legs = arguments.decomp_legs
    args.num_inner_cols = arguments.num_inner_cols
    args.logrows = arguments.logrows
    args.lookup_range = arguments.lookup_range
    return args


def derive_settings(onnx_path: Path, arguments: CircuitArguments) -> Settings:
    """The canonical settings of a chunk model.

    Args:
        onnx_path: The chunk's ONNX file.
        arguments: Its circuit arguments.

    Raises:
        StageError: ezkl cannot express the model, or it is no hinted circuit but should be one.
    """
    if arguments.kind == "hinted":
        return Settings.read(hinted_settings(onnx_path, arguments, EZKL_VERSION))
    return settings_for(onnx_path, run_args(arguments))


def settings_for(onnx_path: Path, args: Any) -> Settings:
    """Canonical settings under any ezkl run arguments (benchmarks compare other visibilities).

    Args:
        onnx_path: The model.
        args: ezkl's run arguments.

    Raises:
        BackendError: ezkl cannot express the model.
    """
    with scratch_folder() as folder:
        out = folder / "settings.json"
        _gen_settings(onnx_path, out, args)
        raw: dict[str, Any] = json.loads(out.read_text())
    raw["timestamp"] = 0
    for field in ("required_range_checks", "required_lookups"):
        raw[field] = sorted(raw[field], key=canonical_json)
    return Settings.read(canonical_json(raw))


def _gen_settings(onnx_path: Path, out: Path, args: Any) -> None:
    """Run `ezkl.gen_settings` in a process of its own, on one thread.

    On more than one thread ezkl counts rows in a race (its loops read a shared row counter when
    they start), so that the same model has another `num_rows` from one call to the next, mostly
    too low. The number of threads is fixed at a process's first use of ezkl.
    """
    fields = {name: getattr(args, name) for name in dir(args) if not name.startswith("_")}
    request = {"path": sys.path, "model": str(onnx_path), "out": str(out), "fields": fields}
    done = subprocess.run(
        [sys.executable, "-I", str(Path(__file__).with_name("settings_child.py"))],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode in (-signal.SIGABRT, -signal.SIGKILL):
        # ezkl's panics are caught there; what is not is an allocation that failed.
        raise OutOfMemoryError(f"{onnx_path.stem}: memory ran out while its circuit was counted")
    if done.returncode != 0 or done.stdout:
        text = " ".join(done.stdout.split()) or f"its process ended with {done.returncode}"
        chunk_id = onnx_path.stem if onnx_path.stem.startswith("chunk-") else None
        raise BackendError(
            f"{onnx_path.stem}: ezkl failed in plan: {text}", stage="plan", chunk_id=chunk_id
        )


def compile_circuit(onnx_path: Path, settings_path: Path, compiled_path: Path) -> None:
    """Compile a chunk model. The output's bytes differ from one compilation to the next."""
    with _ezkl_call("setup", onnx_path.stem):
        ezkl.compile_circuit(str(onnx_path), str(compiled_path), str(settings_path))


def setup_keys(compiled_path: Path, srs_path: Path, vk_path: Path, pk_path: Path) -> None:
    """Make a circuit's keys. Deterministic in (chunk model, settings, SRS, ezkl version)."""
    with _ezkl_call("setup", compiled_path.parent.name):
        ezkl.setup(str(compiled_path), str(vk_path), str(pk_path), str(srs_path))


def generate_witness(
    chunk_id: str, tensors: list[list[int]], compiled_path: Path, witness_path: Path
) -> CircuitWitness:
    """Run a circuit's forward pass.

    Args:
        chunk_id: For error messages.
        tensors: Per ONNX input, its field elements row-major (signed or canonical ints).
        compiled_path: The compiled circuit.
        witness_path: Where ezkl writes the witness that `prove` needs (secret).

    Raises:
        RangeExceededError: A value left the range of the decomposition.
        BackendError: ezkl failed in another way.
    """
    with scratch_folder() as folder:
        data = folder / "input.json"
        data.write_text(json.dumps({"input_data": [[encode(v) for v in t] for t in tensors]}))
        with _ezkl_call("witness", chunk_id):
            ezkl.gen_witness(str(data), str(compiled_path), str(witness_path))
    raw: dict[str, Any] = json.loads(witness_path.read_text())
    processed = raw["processed_outputs"]
    if not processed or not processed.get("poseidon_hash"):
        raise BackendError(
            f"{chunk_id}: ezkl computed no output hashes; its settings are not those of a chunk "
            "circuit",
            stage="witness",
            chunk_id=chunk_id,
        )
    return CircuitWitness(
        outputs=[[decode(v) for v in tensor] for tensor in raw["outputs"]],
        hashes=[decode(v) for v in processed["poseidon_hash"]],
        lookup_inputs=(int(raw["min_lookup_inputs"]), int(raw["max_lookup_inputs"])),
    )


def prove(
    chunk_id: str, witness_path: Path, compiled_path: Path, pk_path: Path, srs_path: Path
) -> ChunkProof:
    """Prove a chunk. Holds the GIL from start to end.

    Raises:
        BackendError: ezkl failed.
    """
    with scratch_folder() as folder:
        out = folder / "proof.json"
        with _ezkl_call("prove", chunk_id):
            ezkl.prove(str(witness_path), str(compiled_path), str(pk_path), str(out), str(srs_path))
        return ChunkProof.from_ezkl(out)


def commitment(
    chunk_id: str, elements: Sequence[str], vk_path: Path, settings_path: Path, srs_path: Path
) -> bytes:
    """Commit to an input as its columns are committed to in a proof.

    Args:
        chunk_id: For error messages.
        elements: Field elements, in their text form.
        vk_path: The circuit's verifying key.
        settings_path: Its settings.
        srs_path: The whole SRS.

    Returns:
        64 bytes a column that holds any of them: x, then y, big-endian.

    Raises:
        BackendError: ezkl failed.
    """
    with _ezkl_call("prove", chunk_id):
        points = ezkl.kzg_commit(list(elements), str(vk_path), str(settings_path), str(srs_path))
    return b"".join(bytes.fromhex(p.x)[::-1] + bytes.fromhex(p.y)[::-1] for p in points)


def verify_proof(proof: ChunkProof, settings_path: Path, vk_path: Path, srs_path: Path) -> bool:
    """Whether a proof verifies under the given key, settings and SRS.

    ezkl trusts the three paths it is handed: the caller has checked their digests. Only the SRS's
    first elements are used.

    Returns:
        True when the proof verifies. False when it is refused, whatever ezkl's reason.
    """
    with scratch_folder() as folder:
        path = folder / "proof.json"
        proof.write_ezkl(path)
        try:
            with _ezkl_call("verify", vk_path.name):
                return bool(
                    ezkl.verify(str(path), str(settings_path), str(vk_path), str(srs_path), True)
                )
        except BackendError as error:
            _log.debug("proof refused: %s", error)
            return False


def generate_insecure_srs(path: Path, logrows: int) -> None:
    """Generate an SRS whose maker (this process) could forge proofs."""
    with _ezkl_call("setup", f"logrows {logrows}"):
        ezkl.gen_srs(str(path), logrows)


@contextmanager
def _ezkl_call(stage: str, subject: str) -> Iterator[None]:
    with tempfile.TemporaryFile() as captured:
        _reasons.texts.clear()
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            text = " ".join("; ".join([str(error), *_reasons.texts[-1:]]).split())
            chunk_id = subject if subject.startswith("chunk-") else None
            if stage == "witness" and _RANGE_PROBLEM.search(text):
                raise RangeExceededError(
                    f"{subject}: a value left the range that the circuit can express ({text}); "
                    "use a smaller --scale, inputs like those the model was trained on, or "
                    "--passes none",
                    stage=stage,
                    chunk_id=chunk_id,
                ) from None
            raise BackendError(
                f"{subject}: ezkl failed in {stage}: {text}", stage=stage, chunk_id=chunk_id
            ) from None
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)

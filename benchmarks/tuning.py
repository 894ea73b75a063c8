"""(b): the best arguments for one stock circuit, found by search.

Every combination of scales, rebase multiplier, decomposition and columns is sized with
`ezkl.gen_settings`; `estimated_cost` ranks them at every logrows that they fit into. Going down the
ranking, ezkl's forward pass checks on several inputs that values stay in range and that the output
is accurate enough, and gives the range of lookup tables (twice what was seen, calibration's own
margin). The first that pass are the finalists; whoever calls proves them and keeps the fastest.
Combinations that are predicted not to fit the memory come last (`OVERESTIMATE`).

The model itself is left as it is: no rewrites. Freivalds' argument stays on, as it is by default,
although a circuit that uses it proves nothing (docs/adr/0013).
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import ezkl
import numpy as np
import onnxruntime

from benchmarks.models.registry import BenchmarkModel, FloatArray
from benchmarks.stock import calibration_inputs, flat, input_json
from zkml_ray.circuits.backend import BLINDING_ROWS
from zkml_ray.commitments.field import decode, to_signed
from zkml_ray.cost.load import Load
from zkml_ray.cost.model import CostModel
from zkml_ray.cost.profiles import load_profile

SCALES: Final = ((7, 7), (8, 10), (10, 10), (11, 11), (12, 12), (13, 13))
MULTIPLIERS: Final = (1, 2)
DECOMPOSITIONS: Final = ((1 << 14, 2), (1 << 12, 2), (1 << 10, 3), (1 << 9, 3), (1 << 7, 4))
COLUMNS: Final = (1, 2, 3, 4, 5, 6, 7)
MAX_LOGROWS: Final = 20

OVERESTIMATE: Final = 1.3
"""The prediction is this package's cost model, made for circuits with a hash region. For large
stock circuits it was 1.36 (LeNet-5, default), 1.49 and 1.90 (ResNet block, tuned and default) times
what was measured: so much more than the memory is taken to fit."""

_SLOT_WEIGHT: Final = {1: 1.2, 2: 0.79, 3: 0.67, 4: 1.0, 5: 0.95, 6: 0.90, 7: 0.88}
"""Cost of a base slot by columns, relative to four columns: proving-key elements a slot."""

_LOOKUP_WEIGHT: Final = 0.25
"""What each lookup table adds to every base slot (13 of 52 microseconds)."""

_EINSUM_WEIGHT: Final = 0.92
"""Cost of a Freivalds slot in base slots at four columns (48 of 52 microseconds)."""

_ROW_WEIGHT: Final = 1.0
"""What every row costs whatever stands in it, in base slots."""


_SHUFFLE_WEIGHT: Final = 3.0
"""What the three columns of shuffles and dynamic lookups add to every row, in base slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """One combination.

    Attributes:
        input_scale: log2 of the fixed-point denominator of the input.
        param_scale: The same of the weights.
        scale_rebase_multiplier: ezkl's.
        decomp_base: Base of the range-check decomposition.
        decomp_legs: Its digits.
        num_inner_cols: Columns.
        logrows: log2 of the rows.
    """

    input_scale: int
    param_scale: int
    scale_rebase_multiplier: int
    decomp_base: int
    decomp_legs: int
    num_inner_cols: int
    logrows: int = MAX_LOGROWS

    def run_args(self) -> Any:
        """As ezkl takes them; everything else is default."""
        arguments = ezkl.PyRunArgs()
        for name, value in asdict(self).items():
            setattr(arguments, name, value)
        return arguments

    def quantisation(self) -> tuple[int, ...]:
        """What decides the values and whether they fit: all but columns and logrows."""
        return (
            self.input_scale,
            self.param_scale,
            self.scale_rebase_multiplier,
            self.decomp_base,
            self.decomp_legs,
        )


def columns_needed(settings: Mapping[str, Any], columns: int, logrows: int) -> tuple[int, int]:
    """Columns that a circuit takes for each operand: base columns and Freivalds columns.

    Args:
        settings: ezkl's, at any logrows; `sizes_of` will do.
        columns: Inner columns, which blocks are made of.
        logrows: log2 of the rows.
    """
    block = ((1 << logrows) - BLINDING_ROWS) * columns
    base = -(-settings["total_assignments"] // block) * columns
    return base, -(-settings["einsum_params"]["total_einsum_col_size"] // block) * columns


def sizes_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ezkl's settings that says how large a circuit is."""
    einsum = settings["einsum_params"]["total_einsum_col_size"]
    names = ("num_rows", "total_assignments", "total_const_size")
    return {
        **{name: settings[name] for name in names},
        "einsum_params": {"total_einsum_col_size": einsum},
        "lookups": len(settings["required_lookups"]),
        "num_inner_cols": settings["run_args"]["num_inner_cols"],
        "logrows": settings["run_args"]["logrows"],
    }


def estimated_cost(settings: Mapping[str, Any], columns: int, logrows: int) -> float:
    """Estimated cost of proving, in base slots; only its order matters.

    Allocated slots are counted, not used ones: columns come in blocks of 2^logrows rows.

    Args:
        settings: ezkl's, at any logrows.
        columns: Inner columns.
        logrows: log2 of the rows.
    """
    base, einsum = columns_needed(settings, columns, logrows)
    shuffled = settings.get("num_shuffles", 0) + settings.get("num_dynamic_lookups", 0) > 0
    weight = _SLOT_WEIGHT[columns] + _LOOKUP_WEIGHT * len(settings["required_lookups"])
    per_row: float = base * weight + einsum * _EINSUM_WEIGHT * _SLOT_WEIGHT[columns]
    return (1 << logrows) * (per_row + _ROW_WEIGHT + (_SHUFFLE_WEIGHT if shuffled else 0.0))


def smallest_logrows(settings: Mapping[str, Any], lookup_width: int) -> int:
    """The smallest logrows that tables, instances and shuffles fit into.

    Args:
        settings: ezkl's.
        lookup_width: Values that a lookup table spans.
    """
    widths = [high - low + 1 for low, high in settings["required_range_checks"]]
    needed = max(
        max(widths, default=0),
        lookup_width if settings["required_lookups"] else 0,
        sum(math.prod(shape) for shape in settings["model_instance_shapes"]),
        settings.get("total_dynamic_col_size", 0) + settings.get("total_shuffle_col_size", 0),
    )
    return max(10, math.ceil(math.log2(needed + BLINDING_ROWS)))


def predicted_bytes(settings: Mapping[str, Any], logrows: int, prices: CostModel) -> int:
    """Memory of proving, by prediction.

    Args:
        settings: ezkl's, at any logrows.
        logrows: log2 of the rows.
        prices: The machine's.
    """
    geometry = Load.of(json.dumps(settings).encode()).geometry(logrows)
    return int(prices.peak_bytes(geometry) / OVERESTIMATE)


def combinations() -> Iterator[Arguments]:
    """All that are tried, logrows aside."""
    for (inputs, params), multiplier, (base, legs), columns in itertools.product(
        SCALES, MULTIPLIERS, DECOMPOSITIONS, COLUMNS
    ):
        yield Arguments(
            input_scale=inputs,
            param_scale=params,
            scale_rebase_multiplier=multiplier,
            decomp_base=base,
            decomp_legs=legs,
            num_inner_cols=columns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A combination that ezkl accepts.

    Attributes:
        arguments: The combination.
        cost: Its estimated cost (`estimated_cost`).
        memory_bytes: Its predicted memory.
    """

    arguments: Arguments
    cost: float
    memory_bytes: int


def ranked(
    model: Path, folder: Path, tried: Iterable[Arguments], memory_bytes: int | None
) -> list[Candidate]:
    """Every combination that ezkl accepts at every logrows that it fits into.

    Args:
        model: The ONNX file.
        folder: Scratch.
        tried: The combinations.
        memory_bytes: Memory to keep within; None: any.

    Returns:
        Cheapest first, but those that are predicted to need more memory last.
    """
    prices = CostModel(profile=load_profile(), threads=1)
    found = []
    target = folder / "sized.json"
    for arguments in tried:
        try:
            ezkl.gen_settings(str(model), str(target), arguments.run_args())
        except RuntimeError:
            continue
        settings = json.loads(target.read_text())
        low = smallest_logrows(settings, (16 << arguments.input_scale) + 1)
        for logrows in range(low, MAX_LOGROWS + 1):
            found.append(
                Candidate(
                    arguments=replace(arguments, logrows=logrows),
                    cost=estimated_cost(settings, arguments.num_inner_cols, logrows),
                    memory_bytes=predicted_bytes(settings, logrows, prices),
                )
            )
    return in_order(found, memory_bytes)


def in_order(found: Iterable[Candidate], memory_bytes: int | None) -> list[Candidate]:
    """Cheapest first, those above the memory last and the smallest of them first."""

    def rank(one: Candidate) -> tuple[bool, float]:
        over = memory_bytes is not None and one.memory_bytes > memory_bytes
        return over, one.memory_bytes if over else one.cost

    return sorted(found, key=rank)


def finalists(
    model: BenchmarkModel,
    folder: Path,
    *,
    count: int,
    max_error: float,
    memory_bytes: int | None = None,
) -> list[dict[str, Any]]:
    """Search, and write the folders of the best combinations that work.

    The estimate is least sure about logrows: few rows and many columns against the reverse. So each
    finalist after the first has at least four times the rows of the one before.

    Args:
        model: The model.
        folder: Gets `finalist-0`, `finalist-1`, ..., each a baseline of one part.
        count: How many at most.
        max_error: Largest absolute error of an output on the calibration inputs.
        memory_bytes: Memory to keep within, by prediction, if anything does; None: any.

    Returns:
        Per finalist its arguments, estimate and error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = ranked(model.path, folder, combinations(), memory_bytes)
    probes: dict[tuple[int, ...], Probe | None] = {}
    chosen: list[dict[str, Any]] = []
    while len(chosen) < count:
        least = 0 if not chosen else chosen[-1]["arguments"]["logrows"] + 2
        for candidate in order:
            arguments = candidate.arguments
            if arguments.logrows < least:
                continue
            if chosen and memory_bytes is not None and candidate.memory_bytes > memory_bytes:
                continue  # only if nothing fits is one tried that presumably does not
            quantisation = arguments.quantisation()
            if quantisation not in probes:
                probes[quantisation] = _probed(model, folder / "probe", arguments)
            probe = probes[quantisation]
            # The same combination stands in the order with more rows, priced as such.
            if probe is None or probe.error > max_error or arguments.logrows < probe.logrows:
                continue
            part = folder / f"finalist-{len(chosen)}" / "part-000"
            part.mkdir(parents=True)
            shutil.copy(model.path, part / "model.onnx")
            ezkl.gen_settings(
                str(part / "model.onnx"), str(part / "settings.json"), probe.run_args(arguments)
            )
            chosen.append({**described(candidate), "max_error": probe.error})
            break
        else:
            break
    refused = [
        [*quantisation, None if probe is None else probe.error]
        for quantisation, probe in probes.items()
        if probe is None or probe.error > max_error
    ]
    if not chosen:
        raise RuntimeError(f"no arguments keep the error below {max_error:g}")
    (folder / "search.json").write_text(
        json.dumps(
            {
                "finalists": chosen,
                "sized": len(order),
                "refused": refused,
                "cheapest": [described(candidate) for candidate in order[:20]],
            }
        )
    )
    return chosen


def described(candidate: Candidate) -> dict[str, Any]:
    """A candidate for a result file."""
    return {
        "arguments": asdict(candidate.arguments),
        "estimate": candidate.cost,
        "predicted_bytes": candidate.memory_bytes,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What forward passes say about a quantisation.

    Attributes:
        error: Largest error of an output on the calibration inputs.
        lookup_range: What its lookup tables have to span; None without tables.
        logrows: The least that holds its tables.
    """

    error: float
    lookup_range: tuple[int, int] | None
    logrows: int

    def run_args(self, arguments: Arguments) -> Any:
        """Ezkl's arguments of a combination with this quantisation."""
        made = arguments.run_args()
        if self.lookup_range is not None:
            made.lookup_range = self.lookup_range
        return made


def _probed(model: BenchmarkModel, part: Path, arguments: Arguments) -> Probe | None:
    """Try a quantisation in a scratch folder; None where values leave the range."""
    part.mkdir(exist_ok=True)
    shutil.copy(model.path, part / "model.onnx")
    onnx, settings = str(part / "model.onnx"), part / "settings.json"
    try:
        ezkl.gen_settings(onnx, str(settings), arguments.run_args())
        ezkl.compile_circuit(onnx, str(part / "circuit"), str(settings))
        tried = [forward(model, part, one) for one in calibration_inputs(model)]
    except RuntimeError:
        return None
    raw = json.loads(settings.read_text())
    span = None
    if raw["required_lookups"]:
        low, high = min(t.lookups[0] for t in tried), max(t.lookups[1] for t in tried)
        span = (min(2 * low, -1), max(2 * high, 1))
    return Probe(
        error=max(t.error for t in tried),
        lookup_range=span,
        logrows=smallest_logrows(raw, 0 if span is None else span[1] - span[0] + 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A quantised forward pass: largest absolute error, and the span of lookup inputs."""

    error: float
    lookups: tuple[int, int]


def forward(model: BenchmarkModel, part: Path, sample: FloatArray) -> Forward:
    """Run a part's compiled circuit on one input, which lacks the batch dimension."""
    with tempfile.TemporaryDirectory(prefix="zkml-ray-bench-") as scratch:
        found = run_part(part, sample, Path(scratch))
    error = np.abs(np.asarray(found.outputs) - float_output(model, sample).ravel()).max()
    return Forward(error=float(error), lookups=found.lookups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """A forward pass: the first output's elements, and the span of lookup inputs."""

    outputs: list[float]
    lookups: tuple[int, int]


def run_part(part: Path, sample: FloatArray, scratch: Path) -> Outputs:
    """Run a part's compiled circuit on one input.

    Args:
        part: Its folder.
        sample: The input, without the batch dimension.
        scratch: For the witness.
    """
    data, made = scratch / "input.json", scratch / "witness.json"
    data.write_text(input_json([flat(sample)]))
    ezkl.gen_witness(str(data), str(part / "circuit"), str(made))
    witness = json.loads(made.read_text())
    scale = json.loads((part / "settings.json").read_text())["model_output_scales"][0]
    return Outputs(
        outputs=[to_signed(decode(value)) / 2.0**scale for value in witness["outputs"][0]],
        lookups=(int(witness["min_lookup_inputs"]), int(witness["max_lookup_inputs"])),
    )


def float_output(model: BenchmarkModel, sample: FloatArray) -> FloatArray:
    """Onnxruntime's first output for one input without its batch dimension."""
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    first: FloatArray = session.run(None, {session.get_inputs()[0].name: sample[None]})[0]
    return first

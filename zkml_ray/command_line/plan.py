"""Commands that prepare proving: plan, calibrate; and what options say about a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from zkml_ray.command_line.terminal import (
    Circuits,
    Dim,
    Json,
    LayersPerChunk,
    Memory,
    Model,
    NoPass,
    NoSalt,
    Passes,
    ProfileOption,
    RangeBits,
    Threads,
    Workers,
    print_json,
    stderr,
    stdout,
)
from zkml_ray.errors import ConfigError, ZkmlRayError
from zkml_ray.extras import named_if_missing

if TYPE_CHECKING:
    from zkml_ray.chunking.load import LoadedModel
    from zkml_ray.circuits.derive import DerivedCircuits
    from zkml_ray.stages.accuracy_report import AccuracyReport
    from zkml_ray.stages.plan import PlanOptions


def plan(
    model: Model,
    scale: Annotated[
        str, typer.Option("--scale", help="Fixed-point bits after the point, or auto.")
    ] = "10",
    layers_per_chunk: LayersPerChunk = None,
    workers: Workers = 2,
    memory: Memory = None,
    dim: Dim = None,
    no_salt: NoSalt = False,
    circuits: Circuits = "auto",
    range_bits: RangeBits = 5,
    passes: Passes = "all",
    no_pass: NoPass = None,
    calibrate: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--calibrate", help="Inputs to measure accuracy with; may be repeated."),
    ] = None,
    max_error: Annotated[
        str,
        typer.Option(
            "--max-error",
            help="Refuse a plan whose outputs differ from onnxruntime's by more than this; "
            "default: warn where prove would stop; none: do not.",
        ),
    ] = "default",
    no_measure: Annotated[
        bool,
        typer.Option(
            "--no-measure", help="Do not compare the outputs on a random input with onnxruntime's."
        ),
    ] = False,
    verify_keys: Annotated[
        bool,
        typer.Option(
            "--verify-keys", help="Make the verifying keys; show the digest for --plan-digest."
        ),
    ] = False,
    threads: Threads = None,
    profile: ProfileOption = None,
    dot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--dot", help="Write the chunk graph to a file, in Graphviz's language."),
    ] = None,
    json_: Json = False,
) -> None:
    """Show how a model would be cut, and what its circuits need. Proves nothing."""
    from zkml_ray.chunking.load import load_model
    from zkml_ray.circuits.sealing import seal
    from zkml_ray.command_line.tables import (
        boundary_table,
        circuits_line,
        dot_graph,
        forecast_lines,
        plan_document,
        plan_table,
        srs_line,
    )
    from zkml_ray.config import checked_threads
    from zkml_ray.cost.model import CostModel
    from zkml_ray.cost.profiles import load_profile
    from zkml_ray.stages.plan import plan as make_plan

    loaded = load_model(model)
    scales = scale_options(scale)
    options = plan_options(
        scales[0],
        layers_per_chunk,
        dim,
        no_salt,
        workers,
        memory,
        passes,
        no_pass,
        circuits,
        range_bits,
    )
    prices = CostModel(profile=load_profile(profile), threads=checked_threads(workers, threads))

    def planned(at: int) -> DerivedCircuits:
        return make_plan(loaded, replace(options, scale=at), prices.profile)

    accuracy, unmeasured = None, ""
    aim = _aim(max_error)
    if calibrate or aim is not None or len(scales) > 1:
        derived, accuracy = _calibrated(loaded, options, planned, scales, calibrate, aim)
    else:
        derived = planned(scales[0])
        if not no_measure:
            accuracy, unmeasured = _measured(loaded, derived)
    alarm = accuracy.warning if accuracy is not None and max_error == "default" else None
    made, forecast = derived.plan, prices.forecast(derived)
    sealed = seal(derived) if verify_keys else None
    if dot is not None:
        dot.write_text(dot_graph(made, forecast), encoding="utf-8")
    if json_:
        document = plan_document(made, forecast, derived.notices)
        if accuracy is not None:
            document["accuracy"] = accuracy.document()
        elif unmeasured:
            document["notices"].append(f"accuracy is not measured: {unmeasured}")
        if sealed is not None:
            document |= {"plan_digest": sealed.digest(), "srs_trust": sealed.srs_trust()}
        print_json(document)
        return
    stdout.print(plan_table(made, forecast))
    stdout.print(boundary_table(made))
    lines = [circuits_line(made)]
    lines += [f"Note: {notice}" for notice in derived.notices]
    lines += forecast_lines(forecast)
    lines += accuracy.lines() if accuracy is not None else []
    lines += [f"Note: accuracy is not measured: {unmeasured}"] if unmeasured else []
    lines.append(f"Unsealed digest {made.digest()}")
    if sealed is not None:
        lines += [f"Plan digest {sealed.digest()}", srs_line(sealed.srs_trust())]
    for line in lines:
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)
    if alarm is not None:
        line = f"WARNING: {alarm}"
        stdout.print(line, markup=False, highlight=False, soft_wrap=True, style="bold red")


def calibrate(
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Where the profile goes [this machine's cache]."),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure this machine's prices by proving small circuits; takes some minutes."""
    from zkml_ray.cluster.session import ray_session
    from zkml_ray.cluster.worker import idle_worker_bytes
    from zkml_ray.cost.calibrate import calibrate as measure
    from zkml_ray.cost.profiles import save_profile

    def tell(line: str) -> None:
        stderr.print(line, markup=False, highlight=False, soft_wrap=True)

    with ray_session(cpus=1, address="local"):
        worker_bytes = idle_worker_bytes()
    tell(f"an idle worker takes {worker_bytes >> 20} MiB")
    profile, measured = measure(worker_bytes=worker_bytes, tell=tell)
    path = save_profile(profile, out)
    if json_:
        print_json({"path": str(path), "profile": profile.model_dump(mode="json")})
        return
    stdout.print(f"{len(measured)} circuits measured; profile saved as {path}", soft_wrap=True)


def plan_options(
    scale: int,
    layers_per_chunk: int | None,
    dim: list[str] | None,
    no_salt: bool,
    workers: int = 2,
    memory: str | None = None,
    passes: str = "all",
    no_pass: list[str] | None = None,
    circuits: str = "auto",
    range_bits: int = 5,
) -> PlanOptions:
    """The plan options that the command line gives.

    Raises:
        ConfigError: One of them has no such value.
    """
    from zkml_ray.config import parse_size
    from zkml_ray.stages.plan import PlanOptions, circuit_kind

    return PlanOptions(
        scale=scale,
        layers_per_chunk=layers_per_chunk,
        workers=workers,
        memory_bytes=None if memory is None else parse_size("--memory", memory),
        dimensions=_dimensions(dim or []),
        salted=not no_salt,
        passes=_passes(passes, no_pass or []),
        circuits=circuit_kind(circuits),
        range_bits=range_bits,
    )


def scale_options(text: str) -> Sequence[int]:
    """The scales that --scale stands for: one, or all that "auto" tries.

    Raises:
        ConfigError: It is neither a number nor "auto".
    """
    from zkml_ray.stages.accuracy import AUTO_SCALES

    if text == "auto":
        return AUTO_SCALES
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise ConfigError(f"--scale is a number of bits or auto, not {text}")
    return (int(text),)


def _aim(max_error: str) -> float | None:
    """The largest error that a plan may have; None: any.

    Raises:
        ConfigError: --max-error has no such value.
    """
    from zkml_ray.stages.comparison import checked_max_error

    checked = checked_max_error(max_error)
    return checked if isinstance(checked, float) else None


def _measured(model: LoadedModel, circuits: DerivedCircuits) -> tuple[AccuracyReport | None, str]:
    """A plan's accuracy on one seeded random input, or why it could not be measured."""
    from zkml_ray.circuits.derive import normalised_graph
    from zkml_ray.stages.accuracy import measure_accuracy, read_samples
    from zkml_ray.stages.inputs import DEFAULT_SEED

    try:
        with named_if_missing():
            graph = normalised_graph(model, dict(circuits.plan.dimensions))
            samples = read_samples(graph, [], seed=DEFAULT_SEED, random=1)
            return measure_accuracy(model, circuits, samples, random=True), ""
    except ZkmlRayError as error:
        return None, error.message


def _calibrated(
    model: LoadedModel,
    options: PlanOptions,
    planned: Callable[[int], DerivedCircuits],
    scales: Sequence[int],
    files: Sequence[Path] | None,
    max_error: float | None,
) -> tuple[DerivedCircuits, AccuracyReport]:
    """A plan with its accuracy on calibration data, or on seeded random inputs.

    Raises:
        ZkmlRayError: No plan meets `max_error`, or the inputs do not fit.
    """
    from zkml_ray.circuits.derive import normalised_graph
    from zkml_ray.stages.accuracy import calibrated, read_samples
    from zkml_ray.stages.inputs import DEFAULT_SEED

    graph = normalised_graph(model, options.dimensions)
    samples = read_samples(graph, files or [], seed=DEFAULT_SEED)
    return calibrated(model, planned, scales, samples, random=not files, max_error=max_error)


def _passes(passes: str, without: list[str]) -> tuple[str, ...] | None:
    """Names of the passes to use; None: all. Unknown names are refused by PlanOptions."""
    from zkml_ray.chunking.rewrite import PASSES

    if passes == "all" and not without:
        return None
    if passes in ("all", "none"):
        named = list(PASSES) if passes == "all" else []
    else:
        named = [name.strip() for name in passes.split(",")]
    for name in without:
        if name not in PASSES:
            raise ConfigError(
                f"--no-pass {name}: there is no such pass; passes: {', '.join(PASSES)}"
            )
    return tuple(name for name in named if name not in without)


def _dimensions(pairs: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        name, separator, value = pair.rpartition("=")
        if not separator or not (value.isascii() and value.isdecimal() and len(value) <= 10):
            raise ConfigError(f"--dim {pair} must look like NAME=VALUE, such as batch=1")
        found[name] = int(value)
    return found

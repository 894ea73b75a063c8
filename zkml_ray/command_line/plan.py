"""Commands that prepare proving: plan, calibrate, operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from zkml_ray.command_line.options import (
    CircuitOptions,
    Json,
    LayersPerChunk,
    MaxErrorOption,
    Memory,
    Model,
    PassOptions,
    Threads,
    Workers,
    max_error_option,
    plan_options,
    scale_options,
)
from zkml_ray.command_line.terminal import print_json, say, stderr, stdout
from zkml_ray.errors import ConfigError, ZkmlRayError
from zkml_ray.extras import named_if_missing

if TYPE_CHECKING:
    from zkml_ray.chunking.load import LoadedModel
    from zkml_ray.circuits.derive import DerivedCircuits
    from zkml_ray.stages.accuracy_report import AccuracyReport
    from zkml_ray.stages.plan import PlanOptions


def plan(
    model: Model,
    *,
    scale: Annotated[
        str, typer.Option("--scale", help="Fixed-point bits after the point, or auto.")
    ] = "10",
    layers_per_chunk: LayersPerChunk = None,
    workers: Workers = 2,
    memory: Memory = None,
    circuits: CircuitOptions,
    passes: PassOptions,
    calibrate: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--calibrate", help="Inputs to measure accuracy with; may be repeated."),
    ] = None,
    max_error: MaxErrorOption = None,
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
    profile: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--profile",
            help="Prices for predictions: a file, or `shipped` [ZKML_RAY_PROFILE, this machine's].",
        ),
    ] = None,
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
    from zkml_ray.events import StageStarted, Working
    from zkml_ray.report.progress import Progress
    from zkml_ray.stages.plan import plan as make_plan

    scales = scale_options(scale)
    options = plan_options(
        scales[0],
        circuits,
        passes,
        layers_per_chunk=layers_per_chunk,
        workers=workers,
        memory=memory,
    )
    loaded = options.taken_by(load_model(model))
    prices = CostModel(profile=load_profile(profile), threads=checked_threads(workers, threads))

    accuracy, unmeasured = None, ""
    checked = max_error_option(max_error) or "default"
    aim = checked if isinstance(checked, float) else None
    with Progress(stderr, StageStarted(stage="plan", detail="reading the model")) as progress:

        def planned(at: int) -> DerivedCircuits:
            return make_plan(loaded, replace(options, scale=at), prices.profile, progress)

        if calibrate or aim is not None or len(scales) > 1:
            derived, accuracy = _calibrated(loaded, options, planned, scales, calibrate, aim)
        else:
            derived = planned(scales[0])
            if not no_measure:
                progress(Working(what="running the circuits on a random input"))
                accuracy, unmeasured = _measured(loaded, derived)
    alarm = accuracy.warning if accuracy is not None and checked == "default" else None
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
    say(*lines)
    if alarm is not None:
        say(f"WARNING: {alarm}", style="bold red")


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

    graph = normalised_graph(model, options.dimensions_of(model).values)
    samples = read_samples(graph, files or [], seed=DEFAULT_SEED)
    return calibrated(model, planned, scales, samples, random=not files, max_error=max_error)


def operators(
    *,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="One operator, such as Conv [all].", show_default=False),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As docs/operators.md has them.")
    ] = False,
    json_: Json = False,
) -> None:
    """List ONNX's operators: which circuits have them, how they are rewritten, what is read."""
    from zkml_ray.chunking.coverage import operator_rows
    from zkml_ray.command_line.tables import operator_lines, operators_markdown

    rows = [row for row in operator_rows() if name is None or row.name.lower() == name.lower()]
    if not rows:
        raise ConfigError(f"ONNX has no operator {name}; zkml-ray operators lists all")
    if json_:
        print_json({"operators": [asdict(row) | {"fate": row.fate} for row in rows]})
    elif markdown:
        say(*operators_markdown(rows))
    else:
        say(*operator_lines(rows))

"""What a person sees: progress on stderr while it works, tables and a sentence at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from zkml_ray.schema.plan import Plan
from zkml_ray.verifying.verdict import INSECURE
from zkml_ray.verifying.verifier import Verdict
from zkml_ray.words import counted

if TYPE_CHECKING:
    # A verifier reports without onnx, which forecasts are made with.
    from zkml_ray.api import Run
    from zkml_ray.chunking.coverage import OperatorRow
    from zkml_ray.schema.forecast import Forecast

CLASSIFIER_MIN_OUTPUTS = 2
_FEW_OPERATORS: Final = 6
"""Operators of a chunk that are listed one by one; kinds that are listed of more."""
MIB = 1 << 20

PLANNED_WORKERS: Final = (1, 2, 4, 8, 16)
"""Numbers of workers that a plan's makespan is shown for."""


def runs_table(runs: Sequence[Run]) -> Table:
    """A line a run of many inputs."""
    table = Table(box=SIMPLE_HEAD)
    for title in ("run", "chunks", "proving"):
        table.add_column(title, justify="left" if title == "run" else "right")
    for run in runs:
        seconds = sum(chunk.prove.seconds for chunk in run.manifest.chunks)
        table.add_row(escape(run.run_id), str(len(run.manifest.chunks)), f"{seconds:.2f} s")
    return table


def run_table(run: Run) -> Table:
    """One row per chunk: what it held and what it cost."""
    table = Table(title="chunks", box=SIMPLE_HEAD, padding=0)
    table.add_column("chunk", no_wrap=True)
    table.add_column("operators", overflow="fold", min_width=10)
    table.add_column("kind", no_wrap=True)
    for column in ("2^", "rows", "keys s", "prove s", "MiB", "proof B"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    for chunk, record in zip(run.plan.chunks, run.manifest.chunks, strict=True):
        table.add_row(
            chunk.id,
            folded(chunk.operators),
            chunk.arguments.kind,
            str(chunk.arguments.logrows),
            f"{chunk.num_rows:,}",
            f"{record.setup.seconds:.2f}" if record.keys_made else "cached",
            f"{record.prove.seconds:.2f}",
            f"{record.peak_rss_bytes / MIB:,.0f}",
            f"{record.proof_bytes:,}",
            record.worker,
        )
    return table


def folded(operators: Sequence[str]) -> str:
    """Operators in a few words: those that repeat are counted, and a long list is cut."""
    counts = Counter(operators)
    if len(operators) <= _FEW_OPERATORS:
        return " ".join(operators)
    words = [name if count == 1 else f"{name} x{count}" for name, count in counts.items()]
    more = len(words) - _FEW_OPERATORS
    return " ".join(words[:_FEW_OPERATORS]) + (f" and {more} more" if more > 0 else "")


def answer_lines(run: Run) -> list[str]:
    """That the run verifies, and its answer: a line, and one an output."""
    lines = [f"{'VERIFIED' if run.verified else 'NOT VERIFIED'} run {run.run_id}"]
    for name, values in run.outputs.items():
        if values.size >= CLASSIFIER_MIN_OUTPUTS:
            best, reference = int(values.argmax()), run.float_outputs.get(name)
            also = ""
            if reference is not None:
                other = int(reference.argmax())
                also = f"; {'as does' if other == best else f'but {other} says'} the float model"
            lines.append(
                f"The model says {best} (largest of {values.size} values of {name}), and this is "
                f"proved{also}."
            )
        else:
            lines.append(f"{name} = {values.ravel()[0]:.6g}, and this is proved.")
    return lines


def run_summary(run: Run, workers: int | None = None) -> list[str]:
    """Accuracy, totals, who had nothing to do, and what the trust rests on, a line each.

    Args:
        run: The run.
        workers: How many there were to prove it; None: not known.
    """
    lines = []
    accuracy = run.manifest.accuracy
    if accuracy is not None:
        lines.append(
            f"Quantised against float: largest difference {accuracy.max_abs_error:.2g}, mean "
            f"{accuracy.mean_abs_error:.2g}."
        )
    for entry in run.comparison.outputs:
        if entry.max_abs_error is None:
            lines.append(f"Quantised against float: output {entry.output} {entry.note}.")
    chunks = run.manifest.chunks
    prove_s = sum(record.prove.seconds for record in chunks)
    span_s = max(r.prove.ended_s for r in chunks) - min(r.setup.started_s for r in chunks)
    used = len({record.worker for record in chunks})
    lines.append(
        f"{counted(len(chunks), 'chunk')} on {counted(used, 'worker')}: "
        f"{prove_s:.1f} s of proving, {span_s:.1f} s from first setup to last proof, "
        f"{sum(record.proof_bytes for record in chunks):,} bytes of proofs."
    )
    if workers is not None and used < workers:
        idle = workers - used
        why = (
            f"the plan has {counted(len(chunks), 'chunk')} (a smaller --memory or "
            "--layers-per-chunk makes more)"
            if len(chunks) < workers
            else "the others were done before it was there"
        )
        lines.append(f"{counted(idle, 'worker')} had nothing to do: {why}.")
    lines.append(f"Stored in {run.store}, project {run.project}.")
    lines.append(f"Plan digest {run.plan_digest}")
    lines.append(srs_line(run.manifest.srs_trust))
    return lines


def srs_line(trust: str) -> str:
    """What the SRS is worth, in one line."""
    if trust == "ceremony":
        return "SRS: the public ceremony's."
    return "SRS: INSECURE, generated locally for testing; whoever generated it can forge proofs."


def plan_table(plan: Plan, forecast: Forecast) -> Table:
    """One row per chunk of a plan; what it reads and makes stands in the boundaries' table."""
    table = Table(title=f"plan of model {plan.model_sha256[:16]}...", box=SIMPLE_HEAD, padding=0)
    table.add_column("chunk", no_wrap=True)
    table.add_column("operators", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for column in ("log rows", "columns", "rows", "hash rows", "prove s", "setup s", "MiB"):
        table.add_column(column, justify="right")
    for chunk in plan.chunks:
        expected = forecast.of(chunk.id)
        table.add_row(
            chunk.id,
            folded(chunk.operators),
            chunk.arguments.kind,
            str(chunk.arguments.logrows),
            f"{expected.column_blocks} x {chunk.arguments.num_inner_cols}",
            f"{chunk.num_rows:,}",
            f"{chunk.poseidon_rows:,}",
            f"{expected.prove_s:.1f}",
            f"{expected.setup_s:.1f}",
            f"{expected.peak_bytes / MIB:,.0f}",
        )
    return table


def boundary_table(plan: Plan) -> Table:
    """One row per boundary of a plan."""
    table = Table(title="boundaries", box=SIMPLE_HEAD, padding=0)
    for column in ("boundary", "shape", "made by", "read by"):
        table.add_column(column)
    for column in ("scale", "leaves", "pack"):
        table.add_column(column, justify="right")
    for boundary in plan.boundaries:
        table.add_row(
            escape(boundary.name),
            "x".join(map(str, boundary.shape)) or "scalar",
            boundary.producer or "input",
            ", ".join(boundary.consumers) or "output",
            str(boundary.scale),
            str(boundary.layout.leaf_count),
            str(boundary.layout.layout().packing.pack),
        )
    return table


def circuits_line(plan: Plan) -> str:
    """Which kind of circuits a plan has, and the range that they hold, in one line."""
    hinted = [chunk.arguments for chunk in plan.chunks if chunk.arguments.kind == "hinted"]
    if not hinted:
        return f"Circuits: native, all {len(plan.chunks)}."
    bits = min(arguments.range_bits for arguments in hinted)
    return (
        f"Circuits: hinted, {len(hinted)} of {len(plan.chunks)}; inputs and rounded activations "
        f"within +-{1 << bits} (--range-bits {bits})."
    )


def forecast_lines(forecast: Forecast) -> list[str]:
    """Predicted totals of a plan, a line each."""
    shown = ", ".join(f"{n}: {forecast.makespan_s(n):.1f} s" for n in PLANNED_WORKERS)
    largest = max(forecast.chunks, key=lambda chunk: chunk.peak_bytes)
    proofs = sum(chunk.proof_bytes for chunk in forecast.chunks)
    return [
        f"Predicted proving time by workers (keys cached, {forecast.threads} threads each): "
        f"{shown}",
        f"Most memory: {largest.chunk}, about {largest.peak_bytes / MIB:,.0f} MiB. "
        f"Proofs: about {proofs:,} bytes.",
    ]


def plan_document(plan: Plan, forecast: Forecast, notices: Sequence[str] = ()) -> dict[str, Any]:
    """A plan, its forecast and what was noted in planning, as one JSON object."""
    return {
        "circuits": {chunk.id: chunk.arguments.kind for chunk in plan.chunks},
        "notices": list(notices),
        "unsealed_digest": plan.digest(),
        "plan": plan.model_dump(mode="json"),
        "forecast": forecast.model_dump(mode="json"),
        "makespan_s": {str(n): round(forecast.makespan_s(n), 3) for n in PLANNED_WORKERS},
        "proof_bytes": sum(chunk.proof_bytes for chunk in forecast.chunks),
    }


def dot_graph(plan: Plan, forecast: Forecast) -> str:
    """The chunk graph in Graphviz's language: chunks are boxes, boundaries their edges."""
    lines = ["digraph plan {", "  rankdir=LR;", "  node [shape=box, fontsize=10];"]
    for name in plan.model_inputs:
        lines.append(f"  {_quoted('input ' + name)} [shape=ellipse];")
    for chunk in plan.chunks:
        expected = forecast.of(chunk.id)
        label = (
            f"{chunk.id}\n{' '.join(chunk.operators)}\n{chunk.arguments.kind}, logrows "
            f"{chunk.arguments.logrows}, "
            f"{expected.prove_s:.1f} s, {expected.peak_bytes / MIB:,.0f} MiB"
        )
        lines.append(f"  {_quoted(chunk.id)} [label={_quoted(label)}];")
    for boundary in plan.boundaries:
        source = boundary.producer or f"input {boundary.name}"
        shape = "x".join(map(str, boundary.shape)) or "scalar"
        label = _quoted(
            f"{boundary.name}\n{shape}, {counted(boundary.layout.leaf_count, 'leaf', 'leaves')}"
        )
        targets = list(boundary.consumers)
        if boundary.name in plan.model_outputs:
            target = f"output {boundary.name}"
            lines.append(f"  {_quoted(target)} [shape=ellipse];")
            targets.append(target)
        lines += [f"  {_quoted(source)} -> {_quoted(t)} [label={label}];" for t in targets]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def verdict_lines(verdict: Verdict, *, verbose: bool = False) -> list[str]:
    """A verdict, for people: that it held comes first.

    Args:
        verdict: The verdict.
        verbose: Whether to list what was checked.
    """
    lines = [f"VERIFIED run {verdict.run_id} of project {verdict.project}", verdict.statement]
    for name, values in verdict.revealed.items():
        shown = ", ".join(f"{value:.4g}" for value in values[:12])
        more = f", ... ({len(values):,} values)" if len(values) > 12 else ""
        lines.append(f"Revealed {name}: {shown}{more}")
    if verdict.hidden:
        lines.append(f"Committed, not shown: {', '.join(verdict.hidden)}")
    lines.append(f"Quantised: {verdict.quantisation}")
    lines.append(verdict.choice)
    if verdict.measured is not None:
        lines.append(verdict.measured.describe())
    lines.append(f"Plan digest {verdict.plan_digest}")
    lines.append(srs_line(verdict.srs_trust))
    # That its maker can forge is said by the line before.
    claims = [claim for claim in verdict.not_claimed if claim != INSECURE]
    lines.append("Not claimed: " + "; ".join(claims) + ".")
    if verbose:
        lines += [f"  ok  {step.name} ({step.seconds:.2f} s)" for step in verdict.steps]
    return lines


def operator_lines(rows: Sequence[OperatorRow]) -> list[str]:
    """Operators, a line each, and how many of them there are of each kind."""
    width = max(len(row.name) for row in rows)
    lines = [f"{row.name:{width}}  {row.fate:17}  {row.how}".rstrip() for row in rows]
    return [*lines, *([_counted(rows)] if len(rows) > 1 else [])]


def operators_markdown(rows: Sequence[OperatorRow]) -> list[str]:
    """docs/operators.md."""
    return [
        "# Operators",
        "",
        "Made by `zkml-ray operators --markdown`. *Hinted* and *native* are the kinds of circuits",
        "that have an operator, in at least some of its forms",
        "([workflows.md](workflows.md#hinted-or-native)); a form that neither has is refused by",
        "node, operator and attribute. *Rewritten* ones are proved as what they are written with.",
        "*On constants* ones are computed in advance and may depend on no input.",
        "",
        _counted(rows),
        "",
        "| operator | | how |",
        "|---|---|---|",
        *(f"| {row.name} | {row.fate} | {row.how.replace('|', chr(92) + '|')} |" for row in rows),
    ]


def _counted(rows: Sequence[OperatorRow]) -> str:
    counts = Counter(row.fate for row in rows)
    return ", ".join(f"{count} {fate}" for fate, count in counts.most_common()) + "."

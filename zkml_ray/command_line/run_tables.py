"""Tables of stored runs: one run, or two beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from zkml_ray.command_line.tables import folded
from zkml_ray.report.facts import RunFacts
from zkml_ray.report.figures import Difference, Figures
from zkml_ray.schema.manifest import ChunkRecord
from zkml_ray.words import counted, seconds_in_words, size_in_words

MIB = 1 << 20


def head_lines(facts: RunFacts, told: Figures | None) -> list[str]:
    """What a run is and how far it is, a line each."""
    where = f"run {facts.run_id} of project {facts.project}"
    state = {
        "complete": "complete",
        "failed": f"FAILED: {facts.failure}",
        "interrupted": "interrupted",
        "under way": "under way, or its process was killed",
    }[facts.state]
    lines = [f"{where}, model {facts.model_file}: {state}"]
    if told is None:
        return [*lines, "Not planned yet."]
    if told.proved < told.chunks:
        lines.append(f"{told.proved} of {counted(told.chunks, 'chunk')} proved.")
    if told.proved:
        lines.append(
            f"{counted(told.proved, 'chunk')} on {counted(told.workers, 'worker')}, "
            f"{seconds_in_words(told.wall_s)} from the first key to the last proof: keys "
            f"{seconds_in_words(told.keys_s)} "
            f"({told.keys_made} made, {told.proved - told.keys_made} found), witness "
            f"{seconds_in_words(told.witness_s)}, prove {seconds_in_words(told.prove_s)}."
        )
        lines.append(
            f"Most memory {size_in_words(told.peak_bytes)}; "
            f"{size_in_words(told.proof_bytes)} of proofs."
        )
    failed = [event for log in facts.logs for event in log.events if event.kind == "failed"]
    lines += [
        f"Attempt {event.attempt} of {event.chunk} on {event.worker} failed: {event.text}"
        for event in failed
    ]
    if facts.manifest is not None:
        lines.append(f"Plan digest {facts.manifest.plan_sha256}")
    return lines


def chunk_table(facts: RunFacts) -> Table:
    """One row a chunk: what it holds, and what it cost where it is proved."""
    table = Table(title="chunks", box=SIMPLE_HEAD, padding=0)
    table.add_column("chunk", no_wrap=True)
    table.add_column("operators", overflow="fold", min_width=12)
    for column in ("2^", "rows", "keys s", "prove s", "MiB", "predicted", "tries"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worker", no_wrap=True)
    records = {record.chunk: record for record in facts.records}
    expected = {entry.chunk: entry for entry in facts.forecast.chunks} if facts.forecast else {}
    for chunk in facts.plan.chunks if facts.plan else ():
        record, forecast = records.get(chunk.id), expected.get(chunk.id)
        table.add_row(
            chunk.id,
            folded(chunk.operators),
            str(chunk.arguments.logrows),
            f"{chunk.num_rows:,}",
            _keys(record),
            f"{record.prove.seconds:.2f}" if record else "",
            f"{record.peak_rss_bytes / MIB:,.0f}" if record else "",
            f"{forecast.peak_bytes / MIB:,.0f}" if forecast else "",
            str(record.attempts) if record else "",
            escape(record.worker) if record else "not proved",
        )
    return table


def _keys(record: ChunkRecord | None) -> str:
    if record is None:
        return ""
    return f"{record.setup.seconds:.2f}" if record.keys_made else "found"


def _number(chunk_id: str) -> str:
    """chunk-007 as 7."""
    return str(int(chunk_id.rpartition("-")[2]))


def boundaries_table(facts: RunFacts) -> Table:
    """One row a boundary: shape, the chunks it leads from and to, whether it is shown, root."""
    table = Table(title="boundaries", box=SIMPLE_HEAD, padding=0)
    table.add_column("boundary", overflow="fold", min_width=16)
    table.add_column("shape", no_wrap=True)
    for column in ("from", "to"):
        table.add_column(column, overflow="fold")
    for column in ("scale", "leaves"):
        table.add_column(column, justify="right")
    table.add_column("values", no_wrap=True)
    table.add_column("root", no_wrap=True)
    roots, revealed = facts.commitments(), facts.revealed()
    for boundary in facts.plan.boundaries if facts.plan else ():
        root = roots.get(boundary.name, "")
        table.add_row(
            escape(boundary.name),
            "x".join(map(str, boundary.shape)) or "scalar",
            _number(boundary.producer) if boundary.producer else "input",
            ", ".join(map(_number, boundary.consumers)) or "output",
            str(boundary.scale),
            str(boundary.layout.leaf_count),
            "revealed" if boundary.name in revealed else "hidden",
            f"{root[:12]}..." if root else "",
        )
    return table


def comparison_table(names: tuple[str, str], rows: Sequence[Difference]) -> Table:
    """Figures of two runs side by side."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("")
    for name in names:
        table.add_column(escape(name), justify="right", overflow="fold")
    table.add_column("second / first", justify="right")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
        table.add_row(row.name, row.first, row.second, ratio)
    return table


def sameness_lines(first: RunFacts, second: RunFacts) -> list[str]:
    """What two runs have in common: model, plan, input, outputs."""
    if first.plan is None or second.plan is None:
        return ["One of them is not planned yet."]
    same_model = first.plan.model_sha256 == second.plan.model_sha256
    same_plan = first.plan.digest() == second.plan.digest()
    lines = [
        f"{'The same model' if same_model else 'DIFFERENT models'}, "
        f"{'the same plan' if same_plan else 'different plans'}."
    ]
    shown, others = first.revealed(), second.revealed()
    for name in first.plan.model_inputs:
        if name in shown and name in others:
            equal = shown[name].values == others[name].values
            lines.append(f"Input {name}: {'the same' if equal else 'different'}.")
    for name in first.plan.model_outputs:
        if name in shown and name in others:
            one, other = shown[name].values, others[name].values
            if len(one) != len(other):
                lines.append(f"Output {name}: of different shapes.")
                continue
            largest = max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0.0)
            said = "the same" if largest == 0 else f"up to {largest:.3g} apart"
            lines.append(f"Output {name}: {said}.")
    return lines

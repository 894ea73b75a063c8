"""Parts of a run's report: timeline, chunk graph, picture and words, over generated runs."""

from __future__ import annotations

import base64
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zkml_ray.report.charts import graph_chart, timeline_chart
from zkml_ray.report.facts import RunFacts
from zkml_ray.report.graph import COLUMNS, MANY_COLUMNS, drawing, stages
from zkml_ray.report.picture import picture
from zkml_ray.report.timeline import LONGEST_PAUSE_S, timeline, trace_events
from zkml_ray.schema.eventlog import EventLog, LoggedEvent
from zkml_ray.schema.manifest import ChunkRecord, Span
from zkml_ray.schema.plan import BoundaryPlan, ChunkPlan, Plan
from zkml_ray.words import counted, listed, seconds_in_words, size_in_words


def graph_of(reads: list[list[int]]) -> Plan:
    """A plan whose chunk i reads what the chunks reads[i] make (-1: the input)."""
    ids = [f"chunk-{i:03d}" for i in range(len(reads))]
    names = {-1: "input", **{i: f"t{i}" for i in range(len(reads))}}
    consumers: dict[int, list[str]] = {source: [] for source in names}
    for index, sources in enumerate(reads):
        for source in sorted(set(sources)):
            consumers[source].append(ids[index])
    boundaries = [
        BoundaryPlan.model_construct(
            name=names[source],
            producer=None if source < 0 else ids[source],
            consumers=tuple(consumers[source]),
        )
        for source in names
    ]
    chunks = [
        ChunkPlan.model_construct(
            id=ids[index],
            inputs=tuple(names[source] for source in sorted(set(sources))),
            outputs=(names[index],),
        )
        for index, sources in enumerate(reads)
    ]
    ends = tuple(names[i] for i in range(len(reads)) if not consumers[i])
    return Plan.model_construct(
        chunks=tuple(chunks),
        boundaries=tuple(boundaries),
        model_inputs=("input",),
        model_outputs=ends,
    )


@st.composite
def graphs(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 40))
    reads = []
    for index in range(count):
        sources = draw(st.lists(st.integers(-1, index - 1), min_size=1, max_size=3))
        reads.append(sources)
    reads[0] = [-1]
    return graph_of(reads)


@given(graphs())
@settings(deadline=None)
def test_every_chunk_and_boundary_of_a_graph_is_drawn_once_and_nothing_overlaps(plan: Plan) -> None:
    drawn = drawing(plan)
    at = stages(plan)
    kinds = Counter(place.kind for place in drawn.places)
    assert kinds["chunk"] == len(plan.chunks) and kinds["output"] == len(plan.model_outputs)
    spots = [(place.column, place.line) for place in drawn.places]
    assert len(set(spots)) == len(spots), "no two stand in one place"
    for a in drawn.places:
        for b in drawn.places:
            assert a is b or a.column != b.column or abs(a.line - b.line) > 0.999
    wanted = sum(len(boundary.consumers) for boundary in plan.boundaries)
    assert len(drawn.edges) == wanted + len(plan.model_outputs)
    for edge in drawn.edges:
        assert edge.source.stage < edge.target.stage, "everything leads onwards"
    for chunk in plan.chunks:
        sources = [at.get(f"chunk-{int(n[1:]):03d}", 0) for n in chunk.inputs if n != "input"]
        assert at[chunk.id] == 1 + max([0, *sources])


@pytest.mark.parametrize("length", [1, 7, 8, 60, 500])
def test_chain_of_any_length_is_as_wide_as_a_page(length: int) -> None:
    plan = graph_of([[i - 1] for i in range(length)])
    drawn = drawing(plan)
    assert drawn.columns <= (MANY_COLUMNS if length >= 60 else COLUMNS)
    names = [boundary.name for boundary in plan.boundaries]
    svg = graph_chart(
        drawn,
        hidden=dict.fromkeys(names, True),
        links={name: f"#b{i}" for i, name in enumerate(names)},
        seconds={},
        labels={},
    )
    assert svg.count('<a class="mark"') == len(names), "a link a boundary"
    assert "NaN" not in svg and "undefined" not in svg


def record(chunk: int, worker: str, at: float, **update: object) -> ChunkRecord:
    fields = {
        "chunk": f"chunk-{chunk:03d}",
        "worker": worker,
        "pid": 1,
        "node": "node-0",
        "threads": 1,
        "attempts": 1,
        "keys_made": True,
        "setup": Span(started_s=at, ended_s=at + 1),
        "witness": Span(started_s=at + 1, ended_s=at + 1.5),
        "prove": Span(started_s=at + 1.5, ended_s=at + 4),
        "verify_s": 0.1,
        "peak_rss_bytes": 1,
        "proof_bytes": 1,
    }
    return ChunkRecord(**{**fields, **update})  # type: ignore[arg-type]


def failed_log(cause: str, at: float) -> EventLog:
    event = LoggedEvent(
        at_s=at, kind="failed", chunk="chunk-001", worker="worker-1", attempt=1, text=cause
    )
    return EventLog(
        run_id="run",
        started_s=at - 1,
        ended_s=at + 1,
        outcome="failed",
        failure="x",
        events=(event,),
        float_outputs=(),
    )


def facts(*records: ChunkRecord, logs: tuple[EventLog, ...] = ()) -> RunFacts:
    return RunFacts(run_id="run", project="p", state="failed", records=records, logs=logs)


@pytest.mark.parametrize("days", [0.01, 1, 400])
def test_run_that_was_resumed_later_has_its_pause_cut_out(days: float) -> None:
    pause = 86400 * days
    line = timeline(facts(record(0, "worker-0", 1000), record(1, "worker-0", 1004 + pause)))
    assert line.pauses == ((1004, pytest.approx(pause)),)
    assert line.shown_s(1004) == pytest.approx(4)
    assert line.shown_s(1004 + pause) == pytest.approx(4 + LONGEST_PAUSE_S)
    assert line.shown_s(1004 + pause / 2) <= 4 + LONGEST_PAUSE_S
    shown = [line.shown_s(span.started_s) for span in line.work]
    assert shown == sorted(shown), "time runs onwards"


def test_idle_time_is_told_apart_by_when_it_was() -> None:
    line = timeline(
        facts(
            record(0, "worker-0", 0),
            record(1, "worker-1", 1),
            record(2, "worker-0", 6),
            record(3, "worker-10", 2),
        )
    )
    assert line.idle_s() == {
        "worker-0": (0, pytest.approx(2), 0),
        "worker-1": (1, 0, pytest.approx(5)),
        "worker-10": (2, 0, pytest.approx(4)),
    }
    assert line.lanes() == ["worker-0", "worker-1", "worker-10"]


def test_failed_attempt_is_in_picture_and_trace_with_its_cause_as_text() -> None:
    cause = 'died & <b>left</b> "nothing"'
    run = facts(record(0, "worker-0", 100), logs=(failed_log(cause, 102.0),))
    line = timeline(run)
    assert [failure.cause for failure in line.failures] == [cause]
    assert line.lanes() == ["worker-0", "worker-1"], "a worker that only failed has a lane"
    svg = timeline_chart(line)
    assert "died &amp; &lt;b&gt;left&lt;/b&gt;" in svg and "<b>" not in svg and "NaN" not in svg
    events = trace_events(run)["traceEvents"]
    assert isinstance(events, list)
    (failure,) = [event for event in events if event["ph"] == "i"]
    assert failure["args"] == {"cause": cause} and failure["ts"] == 2_000_000


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((8, 8), (8, 8)),
        ((1, 1, 8, 6), (6, 8)),
        ((1, 3, 5, 7), (7, 5)),
        ((1, 5, 7, 3), (7, 5)),
        ((1, 5, 7, 1), (7, 5)),
        ((1, 28, 28), (28, 28)),
    ],
)
def test_image_is_a_png_of_its_size(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    uri = picture(shape, values.ravel().tolist())
    assert uri is not None and uri.startswith("data:image/png;base64,")
    found = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert found.size == size and found.mode == ("RGB" if 3 in shape else "L")
    pixels = np.asarray(found)
    assert pixels.min() == 0 and pixels.max() == 255
    scaled = (values - values.min()) / (values.max() - values.min()) * 255
    if shape[-1] != 3 and 3 in shape:
        scaled = np.moveaxis(scaled.reshape(3, *size[::-1]), 0, -1)
    np.testing.assert_allclose(pixels.ravel(), np.round(scaled).ravel(), atol=1)


@pytest.mark.parametrize(
    "shape", [(), (5,), (1, 10), (2, 8), (2, 3, 8, 8), (1, 2, 8, 8), (4, 2000), (1, 4, 8, 8)]
)
def test_other_tensors_are_no_picture(shape: tuple[int, ...]) -> None:
    assert picture(shape, [0.5] * int(np.prod(shape))) is None


def test_constant_image_is_black() -> None:
    assert picture((8, 8), [3.0] * 64) == picture((8, 8), [0.0] * 64)


def test_words() -> None:
    assert [counted(n, "leaf", "leaves") for n in (0, 1, 2, 1500)] == [
        "0 leaves",
        "1 leaf",
        "2 leaves",
        "1,500 leaves",
    ]
    assert [listed(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    times = [0.4234, 9.9, 12.34, 119.9, 125, 7300]
    assert [seconds_in_words(t) for t in times] == [
        "0.42 s",
        "9.90 s",
        "12.3 s",
        "119.9 s",
        "2 min 5 s",
        "2 h 1 min",
    ]
    sizes = [0, 1023, 1024, 5 << 20, 3 << 40, 5 << 50]
    assert [size_in_words(s) for s in sizes] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 TiB",
        "5,120.0 TiB",
    ]

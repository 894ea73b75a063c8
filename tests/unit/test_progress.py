"""Progress of a run, told by its events: what a terminal of 80 by 24 shows, what a pipe gets."""

from __future__ import annotations

import io
import re
import threading
import time
from typing import Any

import pytest
from rich.console import Console

from zkml_ray.errors import ConfigError
from zkml_ray.events import (
    ChunkMoved,
    Event,
    Faulted,
    OfRun,
    PlanReady,
    RunEnded,
    StageStarted,
    Warned,
    WorkersReady,
    ignore,
)
from zkml_ray.report import progress as module
from zkml_ray.report.progress import Progress, showing


class Clock:
    """Time as a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(count: int, price: float = 10.0) -> PlanReady:
    return PlanReady(
        chunks=tuple((f"chunk-{i:03d}", "Gemm Relu") for i in range(count)),
        predicted_s=count * price / 2,
        prices_s=(price,) * count,
    )


def watched(
    *events: Event, terminal: bool = True, height: int = 24, clock: Clock | None = None
) -> tuple[Progress, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, height=height)
    shown = Progress(console, clock=clock or Clock())
    for event in events:
        shown(event)
    return shown, file


def screen(shown: Progress) -> list[str]:
    """What a terminal of 80 by 24 shows now."""
    file = io.StringIO()
    Console(file=file, width=80, height=24, color_system=None).print(shown._render())
    return file.getvalue().splitlines()


def of_36(done: int, at_work: int) -> list[Event]:
    """A run of 36 chunks in its middle."""
    events: list[Event] = [
        StageStarted(stage="plan", detail="cutting the model"),
        plan(36),
        StageStarted(stage="prove", detail="witnesses here, proofs on the workers"),
        WorkersReady(workers=at_work, threads=1),
    ]
    for i in range(36):
        events.append(ChunkMoved(chunk_id=f"chunk-{i:03d}", state="witnessed"))
    for i in range(done + at_work):
        name, worker = f"chunk-{i:03d}", f"worker-{i % at_work}"
        events.append(ChunkMoved(chunk_id=name, state="proving", worker=worker, attempt=1))
        if i < done:
            events.append(ChunkMoved(chunk_id=name, state="verified", worker=worker, seconds=1.0))
    return events


@pytest.mark.parametrize(("done", "at_work"), [(0, 2), (10, 2), (30, 4), (30, 6), (34, 2)])
def test_middle_of_36_chunks_on_80_by_24_shows_bar_time_left_and_every_active_chunk(
    done: int, at_work: int
) -> None:
    shown, _ = watched(*of_36(done, at_work))
    lines = screen(shown)
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert f"{done} of 36 verified" in text and " left" in text
    assert ("━" in text) == (done > 0), "a bar"
    assert f"{done}/36" in text
    for i in range(done, done + at_work):
        assert re.search(rf"chunk-{i:03d} +keys, proof 0 s +worker-{i % at_work}", text)
    assert not any(f"chunk-{i:03d}" in text for i in range(done)), "what is done takes no room"


def test_more_active_chunks_than_lines_are_counted() -> None:
    shown, _ = watched(*of_36(0, 36))
    lines = screen(shown)
    assert len(lines) <= 24 and any(re.search(r"and 17 more", line) for line in lines)


def test_time_left_counts_keys_and_rays_start_and_learns_from_what_is_done() -> None:
    clock = Clock()
    shown, _ = watched(plan(4), clock=clock)
    assert shown.left_s() == pytest.approx(40 + module.RAY_START_S), "no worker is known yet"
    clock.now += 5
    shown(WorkersReady(workers=2, threads=1))
    assert shown.left_s() == pytest.approx(20)
    for i in (0, 1):
        shown(ChunkMoved(chunk_id=f"chunk-{i:03d}", state="proving", worker=f"worker-{i}"))
    clock.now += 2
    assert shown.left_s() == pytest.approx((8 + 8 + 10 + 10) / 2)
    clock.now += 3
    for i in (0, 1):
        shown(ChunkMoved(chunk_id=f"chunk-{i:03d}", state="verified", worker=f"worker-{i}"))
    assert shown.left_s() == pytest.approx((5 + 5) / 2), "twice as fast as was predicted"
    for i in (2, 3):
        shown(ChunkMoved(chunk_id=f"chunk-{i:03d}", state="verified"))
    assert shown.left_s() == 0


def test_waiting_for_ray_is_said() -> None:
    shown, _ = watched(
        plan(2),
        StageStarted(stage="prove", detail="witnesses here"),
        ChunkMoved(chunk_id="chunk-000", state="witnessed"),
    )
    assert shown.status().startswith("starting Ray, 0 of 2 verified")
    shown(WorkersReady(workers=1, threads=1))
    assert not shown.status().startswith("starting Ray")


def test_end_leaves_a_line_a_stage() -> None:
    clock = Clock()
    shown, file = watched(clock=clock)
    with shown:
        for stage, seconds in (("plan", 2.0), ("prove", 30.0), ("verify", 0.5)):
            shown(StageStarted(stage=stage, detail=f"doing {stage}"))
            clock.now += seconds
    left = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    for line in ("plan     2.00 s", "prove    30.0 s", "verify   0.50 s"):
        assert line in left


def test_failed_attempt_and_warnings_are_said_and_told_later_ones_are_not() -> None:
    file = io.StringIO()
    shown = Progress(Console(file=file, width=80), told_later=("the SRS",))
    shown(Warned(message="the SRS"))
    shown(Warned(message="[bold]other[/bold]", severe=True))
    shown(
        Faulted(
            chunk_id="chunk-001",
            worker="worker-0",
            attempt=2,
            cause="worker died",
            message="worker-0 died while it had chunk-001; chunk-001 is tried again",
        )
    )
    said = file.getvalue()
    assert "SRS" not in said and "WARNING: [bold]other[/bold]" in said
    assert "note (worker died): worker-0 died while it had chunk-001; chunk-001 is tried" in said


def test_several_runs_are_counted_together_and_what_all_warn_of_is_said_once() -> None:
    file = io.StringIO()
    shown = Progress(Console(file=file, width=100))
    plan = PlanReady(chunks=(("chunk-000", "Gemm"), ("chunk-001", "Relu")), predicted_s=2.0)
    for run_id in ("day-000", "day-001"):
        shown(OfRun(run_id=run_id, event=plan))
        shown(OfRun(run_id=run_id, event=Warned(message="the SRS")))
        moved = ChunkMoved(chunk_id="chunk-000", state="verified", worker="worker-0")
        shown(OfRun(run_id=run_id, event=moved))
    shown(RunEnded(run_id="day-000"))
    shown(RunEnded(run_id="day-001", error="no room"))
    said = file.getvalue()
    assert said.count("the SRS") == 1
    assert "day-001/chunk-000: verified on worker-0" in said
    assert "2 of 4 verified" in shown.status()
    assert "day-000: complete" in said and "day-001: no room" in said


def test_pipe_is_never_silent_for_long() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=80), silence_s=0.3) as shown:
        for event in (plan(2), WorkersReady(workers=1, threads=1)):
            shown(event)
        shown(ChunkMoved(chunk_id="chunk-000", state="proving", worker="worker-0"))
        time.sleep(1.0)
    lines = [line for line in file.getvalue().splitlines() if "still" in line]
    assert len(lines) >= 2
    assert re.search(r"0 of 2 verified, about .* left; chunk-000 on worker-0 for \d+ s", lines[0])
    assert "\x1b" not in file.getvalue()
    assert not any(thread.name == "progress" for thread in threading.enumerate())


class Terminal(io.StringIO):
    """A file that says that somebody sees it."""

    def isatty(self) -> bool:
        return True


def test_python_programs_show_a_run_where_somebody_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[Event] = []
    for progress, file, seen in (
        ("auto", Terminal(), True),
        ("auto", io.StringIO(), False),
        (None, Terminal(), False),
    ):
        monkeypatch.setattr("sys.stderr", file)
        with showing(progress, heard.append) as listener:  # type: ignore[arg-type]
            for event in of_36(2, 2):
                listener(event)
        assert ("2 of 36 verified" in file.getvalue()) == seen
    assert heard == of_36(2, 2) * 3, "the caller's own listener hears everything"


@pytest.mark.parametrize("progress", ["always", True, 3, ""])
def test_other_kinds_of_progress_are_refused(progress: Any) -> None:
    with (
        pytest.raises(ConfigError, match='progress is "auto" or None'),
        showing(progress, ignore),
    ):
        pass

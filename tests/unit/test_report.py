"""Progress, as it is written where there is no terminal and where there is one."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from zkml_ray.command_line.tables import srs_line
from zkml_ray.events import ChunkMoved, Event, PlanReady, StageStarted, Warned, Working
from zkml_ray.report.progress import Progress

EVENTS: list[Event] = [
    StageStarted(stage="plan", detail="cutting the model"),
    PlanReady(chunks=(("chunk-000", "Gemm Relu"), ("chunk-001", "Gemm")), predicted_s=3.2),
    StageStarted(stage="witness"),
    Warned(message="[bold]no markup[/bold] here"),
    Warned(message="not what it seems", severe=True),
    ChunkMoved(chunk_id="chunk-000", state="witnessed", seconds=0.25),
    ChunkMoved(chunk_id="chunk-000", state="proving", worker="worker-1"),
    ChunkMoved(chunk_id="chunk-000", state="verified", worker="worker-1", seconds=1.5),
]


def written(*, terminal: bool) -> str:
    file = io.StringIO()
    with Progress(Console(file=file, force_terminal=terminal, width=100)) as progress:
        for event in EVENTS:
            progress(event)
    return file.getvalue()


def test_progress_off_a_terminal_is_one_plain_line_an_event() -> None:
    lines = written(terminal=False).splitlines()
    assert [re.sub(r"^\[ *[0-9.]+ s\] ", "", line) for line in lines] == [
        "plan: cutting the model",
        "plan: 2 chunks, about 3 s of proving when keys are cached",
        "warning: [bold]no markup[/bold] here",
        "WARNING: not what it seems",
        "chunk-000: witnessed in 0.25 s",
        "chunk-000: proving on worker-1",
        "chunk-000: verified on worker-1 in 1.50 s",
    ]
    assert "\x1b" not in "".join(lines)


def test_progress_on_a_terminal_shows_how_far_it_is() -> None:
    shown = written(terminal=True)
    assert "\x1b" in shown
    for text in ("1 of 2 verified", "1/2", " left"):
        assert text in shown
    assert "\x1b[1;31mWARNING: not what it seems" in shown, "bold and red"


@pytest.mark.parametrize("trust", ["insecure", "ceremony"])
def test_srs_line_says_insecure_exactly_for_a_generated_srs(trust: str) -> None:
    assert ("INSECURE" in srs_line(trust)) == (trust == "insecure")


def test_progress_off_a_terminal_says_what_is_done_when_nothing_happens_for_long() -> None:
    file = io.StringIO()
    beginning = StageStarted(stage="plan", detail="reading the model")
    with Progress(Console(file=file, width=100), beginning, silence_s=0.02) as progress:
        until(lambda: "reading the model" in file.getvalue())
        progress(Working(what="sizing pieces", done=3, total=40))
        until(lambda: file.getvalue().count("plan: sizing pieces, 3 of 40") == 2)
        progress(StageStarted(stage="witness"))
        until(lambda: file.getvalue().rstrip().endswith("witness"))
    shown = file.getvalue()
    time.sleep(0.06)
    assert file.getvalue() == shown, "nothing is said once it has ended"


def test_progress_off_a_terminal_is_quiet_about_what_takes_no_time() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=100)) as progress:
        progress(Working(what="sizing pieces", done=3, total=40))
    assert file.getvalue() == ""


def test_progress_on_a_terminal_shows_what_is_done_at_once() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, force_terminal=True, width=100)) as progress:
        progress(Working(what="sizing pieces", done=3, total=40))
        until(lambda: "sizing pieces, 3 of 40" in file.getvalue())


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within ten seconds")

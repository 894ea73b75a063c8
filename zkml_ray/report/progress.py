"""A run while it goes on: one bar and the chunks at work on a terminal, plain lines elsewhere.

What is left is estimated from the plan's prices, keys and Ray's start among them, and corrected by
how long the chunks took that are done. Off a terminal no silence is longer than `SILENCE_S`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Literal, TypeAlias

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from zkml_ray.errors import ConfigError
from zkml_ray.events import (
    INSECURE_SRS_WARNING,
    ChunkMoved,
    Event,
    Faulted,
    Listener,
    OfRun,
    PlanReady,
    RunEnded,
    StageStarted,
    Warned,
    WorkersReady,
    Working,
)
from zkml_ray.words import counted, seconds_in_words

Shown: TypeAlias = 'Literal["auto"] | None'
"""Whether a Python program's run is shown while it goes on."""

SILENCE_S: Final = 10.0
"""After so many seconds without a line there is one, where there is no terminal."""

RAY_START_S: Final = 8.0
"""What Ray's start usually takes on a small machine."""
_BEGINNING: Final = StageStarted(stage="start", detail="reading the model")
_DONE: Final = "verified"
_AT_WORK: Final = ("proving", "setting up")
_ROOM: Final = 5
"""Lines of a terminal that are left to what stands around the chunks."""
_BESIDE: Final = ("witness", "compare")
"""Stages that go on while chunks are proved."""
_DOING: Final = {"proving": "keys, proof", "setting up": "keys"}


@dataclass(slots=True)
class _Chunk:
    """What is known of a chunk."""

    operators: str
    price_s: float
    state: str = "waiting"
    worker: str = ""
    since: float = 0.0
    took_s: float | None = None


class Progress:
    """Shows a run's events: a bar and what is at work on a terminal, a line an event elsewhere."""

    def __init__(
        self,
        console: Console,
        beginning: StageStarted = _BEGINNING,
        *,
        told_later: Collection[str] = (),
        silence_s: float = SILENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show nothing yet.

        Args:
            console: Where.
            beginning: What is done until the first event; no line of its own.
            told_later: Warnings that what is printed at the end repeats.
            silence_s: Seconds after which a line says what is being done.
            clock: Gives seconds.
        """
        self._console = console
        self._told_later = told_later
        self._told: set[str] = set()
        self._clock = clock
        self._started = self._spoke = clock()
        self._silence_s = silence_s
        self._stage = beginning
        self._working = Working(what="")
        self._stages: list[tuple[str, float]] = []
        self._chunks: dict[str, _Chunk] = {}
        self._workers = 0
        self._ray_s: float | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._heart: threading.Thread | None = None
        is_live = console.is_terminal or console.is_jupyter
        self._live = (
            Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
            if is_live
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        else:
            self._heart = threading.Thread(target=self._beat, daemon=True, name="progress")
            self._heart.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._heart is not None:
            self._heart.join()
        if self._live:
            self._live.stop()
            for line in self.timeline():
                self._console.print(line, style="dim", markup=False, highlight=False)

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        with self._lock:
            self._take(event)

    def timeline(self) -> list[str]:
        """What each stage took, a line each."""
        now = self._clock()
        ends = [began for _, began in self._stages[1:]] + [now]
        lines = []
        for (stage, began), ended in zip(self._stages, ends, strict=False):
            lines.append(f"{stage:<8} {seconds_in_words(ended - began)}")
        if self._ray_s is not None:
            lines.append(f"{'Ray':<8} up after {seconds_in_words(self._ray_s)}, beside the others")
        return lines

    def left_s(self) -> float | None:
        """Seconds that are left, about; None before there is a plan."""
        if not self._chunks:
            return None
        now = self._clock()
        done = [chunk for chunk in self._chunks.values() if chunk.took_s is not None]
        paid = sum(chunk.price_s for chunk in done)
        factor = sum(chunk.took_s or 0.0 for chunk in done) / paid if paid else 1.0
        left = 0.0
        for chunk in self._chunks.values():
            if chunk.state == _DONE:
                continue
            price = chunk.price_s * factor
            left += max(price - (now - chunk.since), 0.0) if chunk.state in _AT_WORK else price
        busy = max(1, min(self._workers or 1, len(self._chunks)))
        start = 0.0
        if self._ray_s is None:
            start = max(0.0, RAY_START_S - (now - self._started))
        return start + left / busy

    def status(self) -> str:
        """How far the run is, in one line."""
        words = [self._doing()]
        if self._chunks:
            done = sum(chunk.state == _DONE for chunk in self._chunks.values())
            words.append(f"{done} of {len(self._chunks)} verified")
            left = self.left_s()
            if left is not None and done < len(self._chunks):
                words.append(f"about {_roughly(left)} left")
        return ", ".join(words)

    def _doing(self) -> str:
        at_work = any(chunk.state in _AT_WORK for chunk in self._chunks.values())
        waits = any(chunk.state == "witnessed" for chunk in self._chunks.values())
        if waits and not at_work and self._ray_s is None:
            return "starting Ray"
        if at_work and self._stage.stage in _BESIDE:
            return "prove"
        if self._chunks:
            return self._stage.stage
        what = self._working.what or self._stage.detail
        if self._working.total:
            what += f", {self._working.done} of {self._working.total}"
        return f"{self._stage.stage}: {what}" if what else self._stage.stage

    def _take(self, event: Event) -> None:
        now = self._clock()
        if isinstance(event, Working):
            self._working = event
        elif isinstance(event, StageStarted):
            self._stage, self._working = event, Working(what="")
            if not event.detail:
                return
            self._stages.append((event.stage, now))
            self._line(f"{event.stage}: {event.detail}")
        elif isinstance(event, PlanReady):
            prices = event.prices_s or (event.predicted_s,) * len(event.chunks)
            self._chunks = {
                chunk_id: _Chunk(operators=operators, price_s=price)
                for (chunk_id, operators), price in zip(event.chunks, prices, strict=True)
            }
            self._line(
                f"plan: {counted(len(event.chunks), 'chunk')}, about {event.predicted_s:.0f} s of "
                "proving when keys are cached"
            )
        elif isinstance(event, ChunkMoved):
            self._moved(event, now)
        elif isinstance(event, WorkersReady):
            self._workers, self._ray_s = event.workers, now - self._started
            self._line(f"Ray is up, {counted(event.workers, 'worker')}")
        elif isinstance(event, Faulted):
            self._say(f"note ({event.cause}): {event.message}", "yellow")
        elif isinstance(event, Warned) and event.message not in self._told_later:
            word, style = ("WARNING", "bold red") if event.severe else ("warning", "yellow")
            self._say(f"{word}: {event.message}", style)
        elif isinstance(event, OfRun):
            self._of_run(event, now)
        elif isinstance(event, RunEnded):
            self._line(f"{event.run_id}: {event.error or 'complete'}")

    def _of_run(self, told: OfRun, now: float) -> None:
        """Of one of several runs: its chunks beside the others', and what is not said yet."""
        event = told.event
        if isinstance(event, PlanReady):
            prices = event.prices_s or (event.predicted_s,) * len(event.chunks)
            for (chunk_id, operators), price in zip(event.chunks, prices, strict=True):
                name = f"{told.run_id}/{chunk_id}"
                self._chunks[name] = _Chunk(operators=operators, price_s=price)
        elif isinstance(event, ChunkMoved):
            self._moved(replace(event, chunk_id=f"{told.run_id}/{event.chunk_id}"), now)
        elif isinstance(event, Faulted):
            self._take(event)
        elif isinstance(event, Warned) and event.message not in self._told:
            self._told.add(event.message)
            self._take(event)

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(text, style=style), soft_wrap=self._live is None)
        self._spoke = self._clock()

    def _moved(self, event: ChunkMoved, now: float) -> None:
        chunk = self._chunks.setdefault(event.chunk_id, _Chunk(operators="", price_s=1.0))
        if event.state == _DONE and chunk.state in _AT_WORK:
            chunk.took_s = now - chunk.since
        if event.state in _AT_WORK or chunk.state not in _AT_WORK or event.state == _DONE:
            chunk.state, chunk.since = event.state, now
        chunk.worker = event.worker or chunk.worker
        took = "" if event.seconds is None else f" in {event.seconds:.2f} s"
        where = f" on {event.worker}" if event.worker else ""
        self._line(f"{event.chunk_id}: {event.state}{where}{took}")

    def _line(self, text: str) -> None:
        if self._live is None:
            self._spoke = self._clock()
            self._console.print(
                f"[{self._spoke - self._started:6.1f} s] {text}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _beat(self) -> None:
        """Off a terminal: say how far the run is when nothing was said for long."""
        while not self._over.wait(min(1.0, self._silence_s / 5)):
            with self._lock:
                if self._clock() - self._spoke > 0.9 * self._silence_s:
                    now = self._clock()
                    at_work = [
                        f"{name} on {chunk.worker} for {now - chunk.since:.0f} s"
                        for name, chunk in self._chunks.items()
                        if chunk.state in _AT_WORK
                    ]
                    self._line("; ".join([f"still {self.status()}", *at_work[:4]]))

    def _render(self) -> Group:
        with self._lock:
            now = self._clock()
            elapsed = now - self._started
            parts: list[Spinner | Table | Text] = [
                Spinner("dots", text=Text(f"{self.status()}  {elapsed:.0f} s"))
            ]
            if self._chunks:
                done = sum(chunk.state == _DONE for chunk in self._chunks.values())
                bar = Table.grid(padding=(0, 1))
                width = max(10, min(60, self._console.width - 20))
                bar.add_row(
                    ProgressBar(total=len(self._chunks), completed=done, width=width),
                    f"{done}/{len(self._chunks)}",
                )
                parts += [bar, self._table(now)]
            return Group(*parts)

    def _table(self, now: float) -> Table:
        """Chunks at work, as many as the terminal has room for."""
        table = Table.grid(padding=(0, 2))
        for column in range(4):
            table.add_column(no_wrap=True, overflow="ellipsis", justify="left")
            if column == 3:
                table.columns[-1].ratio = 1
        at_work = [(n, c) for n, c in self._chunks.items() if c.state in _AT_WORK]
        room = max(1, self._console.height - _ROOM)
        for name, chunk in at_work[:room]:
            table.add_row(
                name,
                Text(f"{_DOING[chunk.state]} {now - chunk.since:.0f} s", style="yellow"),
                chunk.worker,
                chunk.operators,
            )
        waiting = sum(chunk.state == "witnessed" for chunk in self._chunks.values())
        if len(at_work) > room:
            table.add_row(f"and {len(at_work) - room} more", "", "", "")
        elif waiting:
            table.add_row(Text(f"{waiting} waiting", style="dim"), "", "", "")
        return table


@contextmanager
def showing(progress: Shown, listener: Listener) -> Iterator[Listener]:
    """A listener that also shows a run, where somebody sees it.

    Args:
        progress: "auto": on a terminal and in a notebook; None: nowhere.
        listener: Told of every event all the same.

    Raises:
        ConfigError: `progress` is neither.
    """
    if progress not in ("auto", None):
        raise ConfigError(f'progress is "auto" or None, not {progress!r}')
    console = Console(stderr=True)
    if progress is None or not (console.is_terminal or console.is_jupyter):
        yield listener
        return
    # What is warned of in Python is not said twice.
    with Progress(console, told_later=(INSECURE_SRS_WARNING,)) as shown:

        def both(event: Event) -> None:
            shown(event)
            listener(event)

        yield both


def _roughly(seconds: float) -> str:
    """An estimate in words, no finer than it is worth."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"

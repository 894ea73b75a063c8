"""Progress of what takes long, on stderr: a live line or table on a terminal, lines elsewhere.

Nothing is silent for long: on a terminal a clock runs; elsewhere a line says every ten seconds what
is being done, and how far it is.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from zkml_ray.events import ChunkMoved, Event, PlanReady, StageStarted, Warned, Working

SILENCE_S: Final = 10.0
"""After so many seconds without a line there is one, where there is no terminal."""

_BEGINNING: Final = StageStarted(stage="start", detail="starting Ray")

_STATES = {
    "waiting": "dim",
    "witnessed": "cyan",
    "proving": "yellow",
    "verified": "green",
}


class Progress:
    """Shows a run's events: a live table on a terminal, one line an event elsewhere."""

    def __init__(
        self,
        console: Console,
        beginning: StageStarted = _BEGINNING,
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Show nothing yet.

        Args:
            console: Where to.
            beginning: What is done until the first event; no line of its own.
            silence_s: Seconds after which a line says what is being done.
        """
        self._console = console
        self._started = self._told = time.monotonic()
        self._stage = beginning
        self._working = Working(what="")
        self._predicted_s = 0.0
        self._silence_s = silence_s
        self._ended = threading.Event()
        self._pulse = threading.Thread(target=self._break_silence, daemon=True)
        self._rows: dict[str, tuple[str, str, str, str]] = {}
        self._live = (
            Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        else:
            self._pulse.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()
        else:
            self._ended.set()
            self._pulse.join()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, Working):
            self._working = event
        elif isinstance(event, StageStarted):
            self._stage, self._working = event, Working(what="")
            if event.detail:
                self._line(self._status())
        elif isinstance(event, PlanReady):
            self._predicted_s = event.predicted_s
            self._rows = {
                chunk_id: (operators, "waiting", "", "") for chunk_id, operators in event.chunks
            }
            self._line(
                f"plan: {len(event.chunks)} chunks, about {event.predicted_s:.0f} s of proving "
                "when keys are cached"
            )
        elif isinstance(event, ChunkMoved):
            operators = self._rows.get(event.chunk_id, ("", "", "", ""))[0]
            took = "" if event.seconds is None else f"{event.seconds:.2f} s"
            self._rows[event.chunk_id] = (operators, event.state, event.worker, took)
            where = f" on {event.worker}" if event.worker else ""
            self._line(f"{event.chunk_id}: {event.state}{where}{' in ' + took if took else ''}")
        elif isinstance(event, Warned):
            word, style = ("WARNING", "bold red") if event.severe else ("warning", "yellow")
            self._console.print(
                Text(f"{word}: {event.message}", style=style), soft_wrap=self._live is None
            )

    def _line(self, text: str) -> None:
        if self._live is None:
            self._told = time.monotonic()
            elapsed = self._told - self._started
            self._console.print(
                f"[{elapsed:6.1f} s] {text}", markup=False, highlight=False, soft_wrap=True
            )

    def _break_silence(self) -> None:
        wait_s = self._silence_s
        while not self._ended.wait(wait_s):
            silent_s = time.monotonic() - self._told
            if silent_s >= self._silence_s:
                self._line(self._status())
                silent_s = 0.0
            wait_s = self._silence_s - silent_s

    def _status(self) -> str:
        """What is being done, and how far it is."""
        work = self._working
        if not work.what:
            detail = self._stage.detail
            return f"{self._stage.stage}: {detail}" if detail else self._stage.stage
        counted = f", {work.done} of {work.total}" if work.total else ""
        return f"{self._stage.stage}: {work.what}{counted}"

    def _render(self) -> Group:
        elapsed = time.monotonic() - self._started
        done = sum(state == "verified" for _, state, _, _ in self._rows.values())
        head = f"{self._status()}  {elapsed:.0f} s"
        if self._rows:
            head += f", {done}/{len(self._rows)} chunks, predicted {self._predicted_s:.0f} s"
        table = Table.grid(padding=(0, 2))
        for chunk_id, (operators, state, worker, took) in self._rows.items():
            table.add_row(
                chunk_id, Text(state, style=_STATES.get(state, "")), worker, took, operators
            )
        return Group(Spinner("dots", text=head), table)

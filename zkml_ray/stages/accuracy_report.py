"""What is said of a plan's accuracy: boundary by boundary, as lines and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from zkml_ray.stages.comparison import OutputDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorAccuracy:
    """Difference of one boundary from the float model, over all samples.

    Attributes:
        name: The boundary.
        max_abs_error: Largest absolute difference of an element.
        mean_abs_error: Mean absolute difference.
        max_abs_value: Largest magnitude in the float model, to compare with.
        tolerance: Of an output: what `zkml_ray.stages.comparison` allows by default, at the sample
            that comes nearest to it or furthest beyond; None elsewhere.
        exceeded: Whether a sample is beyond it.
        note: Why there is no number (an error is then infinite).
    """

    name: str
    max_abs_error: float
    mean_abs_error: float
    max_abs_value: float
    tolerance: float | None = None
    exceeded: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyReport:
    """What calibration data says about a plan.

    Attributes:
        input_scale: The plan's scale.
        samples: Number of inputs.
        random: Whether these were seeded random numbers instead of data.
        boundaries: Every boundary, in plan order.
        outputs: Names of those that are the model's outputs.
        top1_agreement: Share of samples whose largest output is the float model's; None where the
            model does not give one vector.
        note: What a reader should know about the float model's values.
        advice: What to try where an output is too far from them.
    """

    input_scale: int
    samples: int
    random: bool
    boundaries: tuple[TensorAccuracy, ...]
    outputs: tuple[str, ...]
    top1_agreement: float | None
    note: str = ""
    advice: str = ""

    @property
    def max_abs_error(self) -> float:
        """Largest absolute difference of an output."""
        return max(entry.max_abs_error for entry in self.boundaries if entry.name in self.outputs)

    @property
    def warning(self) -> str | None:
        """What to say loudly: an output is further off than a run is proved with by default."""
        for entry in self.boundaries:
            if entry.exceeded:
                off = entry.note or f"differs from onnxruntime's by up to {entry.max_abs_error:.3g}"
                return (
                    f"output {entry.name} {off}, more than the {entry.tolerance:.3g} that prove "
                    f"accepts by default (--max-error). {self.advice}"
                )
        return None

    def document(self) -> dict[str, Any]:
        """The form for --json; an error that is no number is null."""
        return {
            "input_scale": self.input_scale,
            "samples": self.samples,
            "random": self.random,
            "max_abs_error": finite(self.max_abs_error),
            "top1_agreement": self.top1_agreement,
            "note": self.note,
            "warning": self.warning,
            "boundaries": [
                {
                    "name": entry.name,
                    "max_abs_error": finite(entry.max_abs_error),
                    "mean_abs_error": finite(entry.mean_abs_error),
                    "max_abs_value": entry.max_abs_value,
                    "tolerance": entry.tolerance,
                    "note": entry.note,
                }
                for entry in self.boundaries
            ],
        }

    def lines(self) -> list[str]:
        """The form for people."""
        what = ("random input" if self.random else "calibration input") + "s" * (self.samples > 1)
        found = [f"accuracy on {self.samples} {what} at scale {self.input_scale}:"]
        for entry in self.boundaries:
            mark = " (output)" if entry.name in self.outputs else ""
            numbers = entry.note or (
                f"max error {entry.max_abs_error:.3g}, mean {entry.mean_abs_error:.3g}, values up "
                f"to {entry.max_abs_value:.3g}"
            )
            found.append(f"  {entry.name}{mark}: {numbers}")
        if self.top1_agreement is not None:
            found.append(f"  top-1 agreement {self.top1_agreement:.1%}")
        if self.note:
            found.append(f"  {self.note}")
        return found


def finite(value: float) -> float | None:
    """A number as JSON has it; None where it is infinite."""
    return value if math.isfinite(value) else None


class Measured:
    """One boundary's differences, sample after sample."""

    def __init__(self) -> None:
        self._max = self._sum = self._largest = 0.0
        self._elements = 0
        self._worst: OutputDifference | None = None
        self._note = ""

    def add(self, entry: OutputDifference) -> None:
        """Take one sample's in."""
        self._note = self._note or entry.note
        self._max = max(self._max, math.inf if entry.max_abs_error is None else entry.max_abs_error)
        self._sum += entry.sum_abs_error
        self._elements += entry.elements
        self._largest = max(self._largest, entry.largest)
        if self._worst is None or _excess(entry) > _excess(self._worst):
            self._worst = entry

    def described(self, name: str, *, is_output: bool) -> TensorAccuracy:
        """All of them together."""
        judged = self._worst if is_output else None
        return TensorAccuracy(
            name=name,
            max_abs_error=self._max,
            mean_abs_error=self._sum / self._elements if self._elements else math.inf,
            max_abs_value=self._largest,
            tolerance=None if judged is None else judged.default,
            exceeded=judged is not None and judged.exceeds("default"),
            note=self._note,
        )


def _excess(entry: OutputDifference) -> float:
    if entry.max_abs_error is None:
        return math.inf if entry.compared else -math.inf
    return entry.max_abs_error - entry.default

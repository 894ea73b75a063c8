"""Proved outputs against the float model's: how far they may differ, and what is said if they do.

Rounding makes a quantised output differ from the float one by some quanta, and by a small part of
its size; an operator that is computed otherwise than the model says, weights that quantise to
nothing or functions that saturate make it differ by about as much as its size. The default
tolerance lies between the two (docs/adr/0022). It judges nothing else: a run within it may still
be too coarse for its purpose, for which there is a tolerance of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from zkml_ray.errors import AccuracyError, ConfigError
from zkml_ray.schema.manifest import Accuracy, Comparison, OutputComparison
from zkml_ray.schema.plan import Plan
from zkml_ray.stages.reference import Reference

MaxError: TypeAlias = "float | Literal['default', 'none']"
"""The largest absolute difference of an output from onnxruntime's: a number; "default": what
`default_tolerance` gives; "none": any, which is still measured and recorded."""

RELATIVE: Final = 1 / 20
"""Of an output's largest value. The mildest wrong operator that it is meant for made 12 %."""

QUANTA: Final = 16
"""Roundings that add up, in steps of 2^-scale."""

HALF: Final = 1 / 2
"""Of an output's largest value: where 16 quanta are more, the values themselves are lost."""

FEW_QUANTA: Final = 4
"""What every output may differ by: values this small are no more than roundings."""

Reals = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDifference:
    """One output's difference from the float model's.

    Attributes:
        output: Its name.
        max_abs_error: Largest absolute difference of an element; None where there is no number.
        sum_abs_error: Sum of the absolute differences; 0 where there is no number.
        elements: How many were compared.
        largest: Largest magnitude in the float model.
        default: The default tolerance.
        note: Why there is no number, or nothing.
        compared: Whether there was anything to compare with; where not, nothing is wrong.
    """

    output: str
    max_abs_error: float | None
    sum_abs_error: float = 0.0
    elements: int = 0
    largest: float = 0.0
    default: float = 0.0
    note: str = ""
    compared: bool = True

    def exceeds(self, max_error: MaxError) -> bool:
        """Whether the difference is more than is accepted."""
        tolerance = self.tolerance(max_error)
        if tolerance is None or not self.compared:
            return False
        return self.max_abs_error is None or self.max_abs_error > tolerance

    def tolerance(self, max_error: MaxError) -> float | None:
        """The largest difference that is accepted; None: any."""
        if max_error == "none":
            return None
        return self.default if max_error == "default" else float(max_error)

    def described(self) -> str:
        """How it differs, in words."""
        if self.max_abs_error is None:
            return f"output {self.output} {self.note}"
        return (
            f"output {self.output} differs from onnxruntime's by up to {self.max_abs_error:.3g} "
            f"(its largest value is {self.largest:.3g})"
        )


def checked_max_error(value: object) -> MaxError:
    """A tolerance that a user gave.

    Args:
        value: A number above 0, "default" or "none"; numbers may be text.

    Raises:
        ConfigError: It is none of these.
    """
    if value == "default":
        return "default"
    if value == "none":
        return "none"
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(
            "--max-error is the largest absolute difference of an output, a number above 0, or "
            f"default or none, not {str(value)[:40]}"
        )
    return number


def default_tolerance(largest: float, scale: int) -> float:
    """How far an output may be from the float model's by default.

    Args:
        largest: The output's largest magnitude in the float model.
        scale: log2 of the fixed-point denominator.
    """
    quantum = 2.0**-scale
    allowed = RELATIVE * largest + QUANTA * quantum
    return min(allowed, max(HALF * largest, FEW_QUANTA * quantum))


def difference(name: str, values: Reals, reference: Reals | None, scale: int) -> OutputDifference:
    """Compare one output.

    Args:
        name: Its name.
        values: The quantised model's, as real numbers.
        reference: The float model's; None: it has no such output.
        scale: log2 of the fixed-point denominator.
    """
    if reference is None:
        note = "was not compared with onnxruntime's"
        return OutputDifference(output=name, max_abs_error=None, note=note, compared=False)
    if reference.shape != values.shape:
        note = f"has shape {list(values.shape)}, onnxruntime's has {list(reference.shape)}"
        return OutputDifference(output=name, max_abs_error=None, note=note)
    wanted = reference.astype(np.float64)
    if not np.isfinite(wanted).all():
        wrong = wanted[~np.isfinite(wanted)]
        note = f"is {wrong[0]:g} in onnxruntime ({wrong.size} of {wanted.size} elements)"
        return OutputDifference(output=name, max_abs_error=None, note=note)
    errors = np.abs(values - wanted)
    largest = float(np.abs(wanted).max())
    return OutputDifference(
        output=name,
        max_abs_error=float(errors.max()),
        sum_abs_error=float(errors.sum()),
        elements=errors.size,
        largest=largest,
        default=default_tolerance(largest, scale),
    )


def compared(
    plan: Plan, outputs: Mapping[str, Reals], reference: Reference
) -> tuple[OutputDifference, ...]:
    """Compare every output of a model, in plan order."""
    return tuple(
        difference(name, outputs[name], reference.values.get(name), plan.input_scale)
        for name in plan.model_outputs
    )


def require(
    differences: Sequence[OutputDifference], max_error: MaxError, plan: Plan, run_id: str
) -> None:
    """Stop a run whose outputs are too far from the float model's, before it is proved.

    Args:
        differences: Every output's.
        max_error: What is accepted.
        plan: The plan, for what to try next.
        run_id: The run, which can be continued.

    Raises:
        AccuracyError: One is.
    """
    wrong = [entry for entry in differences if entry.exceeds(max_error)]
    if not wrong:
        return
    first = wrong[0]
    tolerance = first.tolerance(max_error)
    more = f" (and {len(wrong) - 1} more outputs)" if len(wrong) > 1 else ""
    beyond = "" if first.max_abs_error is None else f", more than {tolerance:.3g}"
    raise AccuracyError(
        f"{first.described()}{beyond}{more}; the run is stopped before it is proved. "
        f"{advice(plan)}; zkml-ray plan --calibrate INPUT shows at which boundary the difference "
        f"begins; zkml-ray resume {run_id} --max-error none proves it all the same",
        output=first.output,
        max_abs_error=first.max_abs_error,
        tolerance=tolerance,
    )


def advice(plan: Plan) -> str:
    """What to try where a plan's outputs are too far from the float model's."""
    return f"Try a larger --scale than {plan.input_scale}"


def warning(differences: Sequence[OutputDifference]) -> str | None:
    """What to say where any difference is accepted and one is beyond the default."""
    for entry in differences:
        if entry.exceeds("default"):
            beyond = "" if entry.max_abs_error is None else f", more than {entry.default:.3g}"
            return f"{entry.described()}{beyond}: what is proved is not what the model computes"
    return None


def recorded(
    differences: Sequence[OutputDifference], reference: Reference, max_error: MaxError
) -> Comparison:
    """The form for the manifest."""
    return Comparison(
        reference=reference.source,
        note=reference.note,
        outputs=tuple(
            OutputComparison(
                output=entry.output,
                max_abs_error=entry.max_abs_error,
                tolerance=entry.tolerance(max_error),
                note=entry.note,
            )
            for entry in differences
        ),
    )


def summary(differences: Sequence[OutputDifference]) -> Accuracy | None:
    """Largest and mean difference over all outputs; None where one has no number."""
    if any(entry.max_abs_error is None for entry in differences):
        return None
    return Accuracy(
        max_abs_error=max(entry.max_abs_error or 0.0 for entry in differences),
        mean_abs_error=sum(entry.sum_abs_error for entry in differences)
        / sum(entry.elements for entry in differences),
    )

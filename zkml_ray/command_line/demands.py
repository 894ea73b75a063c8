"""What verifiers demand of a plan besides that it is the model's: the options of `verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Optional

import typer

from zkml_ray import limits
from zkml_ray.config import parse_size
from zkml_ray.errors import ConfigError

if TYPE_CHECKING:
    from zkml_ray.stages.samples import SampleInputs
    from zkml_ray.verifying.policy import VerifierPolicy

# Optional[...] and not "... | None": typer on Python 3.10.


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """How fine a plan has to be, measured on which inputs, and what verifying it may take."""

    PANEL: ClassVar[str] = "Demands"

    min_scale: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--min-scale",
            help="Least bits after the point of inputs and activations "
            f"[{limits.MIN_SCALE} with --model].",
        ),
    ] = None
    min_weight_bits: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--min-weight-bits",
            help=f"Least bits after the point of weights [{limits.MIN_WEIGHT_BITS} with --model].",
        ),
    ] = None
    min_table_bits: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--min-table-bits",
            help="Least log2 of the rows of hinted circuits with functions, above the scale "
            f"[{limits.MIN_TABLE_BITS} with --model].",
        ),
    ] = None
    max_weight_loss: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--max-weight-loss",
            help="Most that rounding may change of a weight tensor, as a share of its norm; with 1 "
            "native weights may be coarser than inputs as well "
            f"[{limits.MAX_WEIGHT_LOSS:g} with --model].",
        ),
    ] = None
    sample_inputs: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            "--sample-inputs",
            help="Inputs of your own (.json, .npy, .npz; may be repeated): the plan's quantised "
            "model is compared with yours on them. With --model; needs zkml-ray[prove].",
        ),
    ] = None
    min_agreement: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--min-agreement",
            help="Least share of the sample inputs on which the largest output is the float "
            "model's, such as 0.99.",
        ),
    ] = None
    max_sample_error: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--max-sample-error",
            help="Largest error of an output on the sample inputs that is accepted.",
        ),
    ] = None

    max_seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--max-seconds", help="Longest time that verifying may take [any]."),
    ] = None
    max_memory: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--max-memory",
            help="Most memory of each process that verifies, such as 4GiB [any].",
        ),
    ] = None

    def max_memory_bytes(self) -> int | None:
        """The limit of memory.

        Raises:
            ConfigError: It is no size.
        """
        return None if self.max_memory is None else parse_size("--max-memory", self.max_memory)

    def policy(self, *, with_model: bool) -> VerifierPolicy | None:
        """The floors that were asked for; those that were not are the trust root's usual ones.

        Args:
            with_model: Whether the trust root is a model.

        Raises:
            ConfigError: A floor is out of range.
        """
        from zkml_ray.verifying.policy import VerifierPolicy

        asked = {
            "min_scale": self.min_scale,
            "min_weight_bits": self.min_weight_bits,
            "min_table_bits": self.min_table_bits,
        }
        given: dict[str, Any] = {name: n for name, n in asked.items() if n is not None}
        if self.max_weight_loss is not None:
            given["max_weight_loss"] = self.max_weight_loss
        if not given:
            return None
        usual = {} if with_model else dict.fromkeys(asked, 1)
        return VerifierPolicy(**{**usual, **given})

    def measure(self) -> SampleInputs | None:
        """The measurement that was asked for.

        Raises:
            ConfigError: No inputs are named for it, or they cannot be used.
        """
        if not self.sample_inputs:
            if self.min_agreement is not None or self.max_sample_error is not None:
                raise ConfigError(
                    "--min-agreement and --max-sample-error are measured: name inputs "
                    "(--sample-inputs)"
                )
            return None
        # Of the extra "prove", and from a higher room: only this option needs it.
        from zkml_ray.stages.samples import SampleInputs

        return SampleInputs(
            self.sample_inputs, min_agreement=self.min_agreement, max_error=self.max_sample_error
        )

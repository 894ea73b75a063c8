"""What a verifier demands of a plan that somebody else chose.

A plan is sound within the limits of `verifying.trust`, and says how coarse the arithmetic is. With
the model as trust root the *prover* chooses it: with weights of one bit he would have a
caricature of the model verified, whose answer may be another one. So the verifier holds plans to
floors. Who verifies by a plan's digest relies on its author for that; floors that the caller states
hold there too.

Floors bound how coarse the arithmetic is, not how far an output is off: that depends on the model.
Who has data measures it (`measured` of `verify_manifest`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from zkml_ray import limits
from zkml_ray.errors import ConfigError, VerificationError
from zkml_ray.schema.plan import ChunkPlan, Plan

WEIGHT_REWRITES: Final = frozenset({"conv-im2col", "dense-integer", "layer-norm"})
"""Rewrites whose parameter is the bits that weights keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierPolicy:
    """Floors of a plan.

    Attributes:
        min_scale: Bits after the point of inputs and activations.
        min_weight_bits: Bits after the point of weights: a native circuit's parameter scale, log2
            of a hinted circuit's rows, the parameter of rewrites that round weights.
        min_table_bits: log2 of the rows of hinted circuits that compute functions (erf, softmax,
            layer normalisation), above the scale.
    """

    min_scale: int = limits.MIN_SCALE
    min_weight_bits: int = limits.MIN_WEIGHT_BITS
    min_table_bits: int = limits.MIN_TABLE_BITS

    def __post_init__(self) -> None:
        for option, value in (
            ("--min-scale (min_scale)", self.min_scale),
            ("--min-weight-bits (min_weight_bits)", self.min_weight_bits),
            ("--min-table-bits (min_table_bits)", self.min_table_bits),
        ):
            if not 1 <= value <= limits.MAX_SCALE_BITS:
                raise ConfigError(
                    f"{option} must lie in 1..{limits.MAX_SCALE_BITS} bits, not {value}"
                )

    def as_json(self) -> dict[str, Any]:
        """The floors by name."""
        return {
            "min_scale": self.min_scale,
            "min_weight_bits": self.min_weight_bits,
            "min_table_bits": self.min_table_bits,
        }

    def describe(self) -> str:
        """The floors in words."""
        return (
            f"inputs in steps of 2^-{self.min_scale} or finer, weights of 2^-{self.min_weight_bits}"
            f" or finer, tables of functions of 2^(scale + {self.min_table_bits}) rows or more"
        )


def check_policy(plan: Plan, policy: VerifierPolicy) -> None:
    """The plan is at least as fine as the policy demands.

    Raises:
        VerificationError: Code "plan-precision".
    """
    if plan.input_scale < policy.min_scale:
        raise _coarse("", "--min-scale", plan.input_scale, policy.min_scale)
    for chunk in plan.chunks:
        _check_chunk(chunk, policy)
    for step in plan.rewrites:
        if step.name in WEIGHT_REWRITES and step.parameter < policy.min_weight_bits:
            subject = f"rewrite {step.name} at {step.node}: "
            raise _coarse(subject, "--min-weight-bits", step.parameter, policy.min_weight_bits)


def shortfalls(plan: Plan, policy: VerifierPolicy) -> str | None:
    """Why a verifier of this policy would refuse the plan, or None if he would not."""
    try:
        check_policy(plan, policy)
    except VerificationError as error:
        return error.message
    return None


def _check_chunk(chunk: ChunkPlan, policy: VerifierPolicy) -> None:
    arguments = chunk.arguments
    hinted = arguments.kind == "hinted"
    bits = arguments.logrows if hinted else arguments.param_scale
    if bits < policy.min_weight_bits:
        raise _coarse(f"{chunk.id}: ", "--min-weight-bits", bits, policy.min_weight_bits)
    # Operators are the plan's word here; what is re-built from the model must agree with it.
    if hinted and limits.FUNCTIONS.intersection(chunk.operators):
        bits = arguments.logrows - arguments.input_scale
        if bits < policy.min_table_bits:
            raise _coarse(f"{chunk.id}: ", "--min-table-bits", bits, policy.min_table_bits)


_KINDS: Final = {
    "--min-scale": "inputs keep {} bits after the point",
    "--min-weight-bits": "weights keep {} bits after the point",
    "--min-table-bits": "its tables have 2^(scale + {}) rows",
}


def _coarse(subject: str, option: str, got: int, floor: int) -> VerificationError:
    return VerificationError(
        f"the plan is coarser than the verifier accepts: {subject}{_KINDS[option].format(got)}; at "
        f"least {floor} are demanded of a plan that the prover chose ({option})",
        expected=f"at least {floor}",
        got=str(got),
        subject=subject.removesuffix(": "),
        code="plan-precision",
    )

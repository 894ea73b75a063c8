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
from typing import TYPE_CHECKING, Any, Final

from zkml_ray import limits
from zkml_ray.errors import ConfigError, VerificationError
from zkml_ray.schema.plan import ChunkPlan, Plan

if TYPE_CHECKING:
    from zkml_ray.chunking.graph import ModelGraph

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
        max_weight_loss: What rounding may change of a weight tensor, as a share of its norm, above
            0 and up to 1. Only a verifier who has the model can tell. Below 1 the weights of native
            circuits are as fine as their inputs, at least: of such the circuits' derivation keeps
            every output's (`zkml_ray.chunking.native.weights`), and of coarser ones it does not.
    """

    min_scale: int = limits.MIN_SCALE
    min_weight_bits: int = limits.MIN_WEIGHT_BITS
    min_table_bits: int = limits.MIN_TABLE_BITS
    max_weight_loss: float = limits.MAX_WEIGHT_LOSS

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

        if not 0 < self.max_weight_loss <= 1:
            raise ConfigError(
                "--max-weight-loss (max_weight_loss) is a share above 0 and up to 1, not "
                f"{self.max_weight_loss:g}"
            )

    def as_json(self) -> dict[str, Any]:
        """The floors by name."""
        return {
            "min_scale": self.min_scale,
            "min_weight_bits": self.min_weight_bits,
            "min_table_bits": self.min_table_bits,
            "max_weight_loss": self.max_weight_loss,
        }

    def describe(self, *, with_model: bool) -> str:
        """The floors in words.

        Args:
            with_model: Whether there was a model to compare weights with.
        """
        weights = f", no weight tensor changed by more than {self.max_weight_loss:.3g} of its norm"
        return (
            f"inputs in steps of 2^-{self.min_scale} or finer, weights of 2^-{self.min_weight_bits}"
            f" or finer, tables of functions of 2^(scale + {self.min_table_bits}) rows or more"
            + (weights if with_model else "")
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


def check_weights(plan: Plan, normalised: ModelGraph, policy: VerifierPolicy) -> None:
    """Rounding leaves the model's weights what they are.

    Args:
        plan: Whose nodes, rewrites and bits count.
        normalised: The model before the plan's rewrites.
        policy: Bounds the loss.

    Raises:
        VerificationError: Code "plan-precision".
    """
    import numpy as np
    from onnx import numpy_helper

    bits = _bits_of_nodes(plan)
    for node in normalised.nodes.values():
        # Weights of other nodes keep more: those of native circuits all but 2^-10 of themselves
        # (ADR 0021, `_check_chunk`), those of forms such as attention 15 bits.
        if node.op_type not in _WEIGHTED or node.name not in bits:
            continue
        for name in node.input:
            if name not in normalised.initializers:
                continue
            weight = np.asarray(numpy_helper.to_array(normalised.initializers[name]), np.float64)
            norm = float(np.linalg.norm(weight))
            step = 2.0 ** -bits[node.name]
            lost = float(np.linalg.norm(weight - np.rint(weight / step) * step))
            if lost > policy.max_weight_loss * norm and name not in node.input[2:]:
                raise _lossy(node.name, bits[node.name], lost / norm, policy.max_weight_loss)


def shortfalls(
    plan: Plan, policy: VerifierPolicy, normalised: ModelGraph | None = None
) -> str | None:
    """Why a verifier of this policy would refuse the plan, or None if he would not.

    Args:
        plan: The plan.
        policy: His floors.
        normalised: The model before the plan's rewrites; None: weights are not looked at.
    """
    try:
        check_policy(plan, policy)
        if normalised is not None:
            check_weights(plan, normalised, policy)
    except VerificationError as error:
        return error.message
    return None


def _check_chunk(chunk: ChunkPlan, policy: VerifierPolicy) -> None:
    arguments = chunk.arguments
    hinted = arguments.kind == "hinted"
    bits = arguments.logrows if hinted else arguments.param_scale
    if bits < policy.min_weight_bits:
        raise _coarse(f"{chunk.id}: ", "--min-weight-bits", bits, policy.min_weight_bits)
    # Which weights are made whole is judged at the inputs' scale.
    if not hinted and policy.max_weight_loss < 1 and bits < arguments.input_scale:
        raise _coarse(f"{chunk.id}: ", "--max-weight-loss", bits, arguments.input_scale)
    # Operators are the plan's word here; what is re-built from the model must agree with it.
    if hinted and limits.FUNCTIONS.intersection(chunk.operators):
        bits = arguments.logrows - arguments.input_scale
        if bits < policy.min_table_bits:
            raise _coarse(f"{chunk.id}: ", "--min-table-bits", bits, policy.min_table_bits)


def _bits_of_nodes(plan: Plan) -> dict[str, int]:
    """Bits that weights keep, by node of the model before its rewrites, where those are all."""
    found: dict[str, int] = {}
    rounded = [
        (name, chunk.arguments.logrows)
        for chunk in plan.chunks
        if chunk.arguments.kind == "hinted"
        for name in chunk.nodes
    ]
    rounded += [(s.node, s.parameter) for s in plan.rewrites if s.name in WEIGHT_REWRITES]
    for name, bits in rounded:
        # A part of a split is named after the whole: its name, a slash, which part.
        ends = [at for at, sign in enumerate(name) if sign == "/"]
        for whole in (name, *(name[:end] for end in ends)):
            found[whole] = min(bits, found.get(whole, bits))
    return found


def _lossy(node: str, bits: int, lost: float, most: float) -> VerificationError:
    return VerificationError(
        f"the plan is coarser than the verifier accepts: {node}: weights of {bits} bits after the "
        f"point differ from the model's by {lost:.3g} of their norm; at most {most:.3g} is "
        "accepted of a plan that the prover chose (--max-weight-loss)",
        expected=f"at most {most:.3g}",
        got=f"{lost:.3g}",
        subject=node,
        code="plan-precision",
    )


_WEIGHTED: Final = frozenset({"Conv", "Einsum", "Gemm", "MatMul", "Mul"})
"""Operators that multiply by what is constant."""

_KINDS: Final = {
    "--min-scale": "inputs keep {} bits after the point",
    "--min-weight-bits": "weights keep {} bits after the point",
    "--min-table-bits": "its tables have 2^(scale + {}) rows",
    "--max-weight-loss": "weights keep {} bits after the point, fewer than inputs",
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

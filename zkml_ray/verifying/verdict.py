"""What a verification that held says, and what it does not say."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from zkml_ray.errors import VerificationError
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import CircuitArguments, Plan, SealedPlan
from zkml_ray.verifying.policy import VerifierPolicy
from zkml_ray.words import counted

NOT_CLAIMED: Final = (
    "the float model's exact output: what is proved is the quantised model, each rounding to one "
    "of the two neighbouring integers",
    "that the model is accurate or fit for a purpose",
    "when, where or by whom the run was made, and all else that the manifest tells of its making",
)

UNSALTED: Final = (
    "that hidden values stay hidden: leaves carry no salts, so guesses can be tested against them"
)

LEAKY_NATIVE: Final = (
    "proofs of native circuits show counts of their values' signs, so that a guess of it can be "
    "tested"
)

INSECURE: Final = "anything against the maker of the SRS: it was generated, and he can forge proofs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the verification that held.

    Attributes:
        name: What was checked.
        seconds: How long it took.
    """

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The plan's quantised model beside the float model, on inputs of the verifier's own.

    Attributes:
        samples: Number of inputs.
        reference: What gave the float model's outputs.
        out_of_range: Those that the plan's circuits do not admit: no proof of them is possible.
        max_abs_error: Largest absolute difference of an output; None where every input is out of
            range.
        mean_abs_error: Mean absolute difference.
        top1_agreement: Share of the inputs in range whose largest output is the float model's;
            None where the model does not give one vector of scores.
    """

    samples: int
    reference: str
    out_of_range: int
    max_abs_error: float | None
    mean_abs_error: float | None
    top1_agreement: float | None

    def describe(self) -> str:
        """The measurement in one sentence."""
        if self.max_abs_error is None or self.mean_abs_error is None:
            return f"Measured: all {self.samples} sample inputs are outside the plan's range."
        said = (
            f"Measured on {self.samples - self.out_of_range} sample inputs against "
            f"{self.reference}: outputs off by {self.max_abs_error:.3g} at most, "
            f"{self.mean_abs_error:.3g} on average"
        )
        if self.top1_agreement is not None:
            said += f"; the same largest output on {self.top1_agreement:.2%}"
        if self.out_of_range:
            said += f"; {self.out_of_range} more are outside the plan's range"
        return said + "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a verification that held (a failed one raises).

    Attributes:
        ok: True.
        run_id: The run.
        project: Its project.
        plan_digest: Digest of the sealed plan, usable as a trust root from now on.
        trust_root: What was trusted: "model" or "plan digest".
        statement: What was proved, in one sentence.
        quantisation: The fixed-point arithmetic that was proved, in one line.
        plan_chosen_by: "prover", or "author of the plan digest": whom one relies on for how
            coarse that arithmetic is.
        policy: The floors that the plan was held to; None: none.
        measured: The quantised model beside the float model, where sample inputs were given.
        revealed: Per revealed boundary, its real values, flat, row-major.
        hidden: Boundaries that are committed to and not shown.
        srs_trust: "ceremony", or "insecure": whoever generated the SRS can forge.
        not_claimed: What the proof does not say.
        steps: What was checked.
    """

    ok: bool
    run_id: str
    project: str
    plan_digest: str
    trust_root: str
    statement: str
    quantisation: str
    plan_chosen_by: str
    policy: VerifierPolicy | None
    measured: Measured | None
    revealed: Mapping[str, tuple[float, ...]]
    hidden: tuple[str, ...]
    srs_trust: str
    not_claimed: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def choice(self) -> str:
        """Who chose how coarse the arithmetic is, and within which floors, in one sentence."""
        by_prover = self.plan_chosen_by == "prover"
        floors = "no floors were set"
        if self.policy is not None:
            floors = f"floors: {self.policy.describe(with_model=by_prover)}"
        if by_prover:
            return f"The prover chose the plan; {floors}."
        return f"The plan is that of whoever published its digest; {floors}."

    def as_json(self) -> dict[str, Any]:
        """The verdict as the command line's JSON object."""
        return {
            "ok": self.ok,
            "run_id": self.run_id,
            "project": self.project,
            "plan_digest": self.plan_digest,
            "trust_root": self.trust_root,
            "statement": self.statement,
            "quantisation": self.quantisation,
            "plan_chosen_by": self.plan_chosen_by,
            "policy": None if self.policy is None else self.policy.as_json(),
            "measured": None if self.measured is None else asdict(self.measured),
            "revealed": {name: list(values) for name, values in self.revealed.items()},
            "hidden": list(self.hidden),
            "srs_trust": self.srs_trust,
            "not_claimed": list(self.not_claimed),
            "steps": [{"name": step.name, "seconds": step.seconds} for step in self.steps],
        }

    @classmethod
    def of_json(cls, document: dict[str, Any]) -> Verdict:
        """The verdict that `as_json` gave."""
        policy, measured = document["policy"], document["measured"]
        return cls(
            **{
                **document,
                "policy": None if policy is None else VerifierPolicy(**policy),
                "measured": None if measured is None else Measured(**measured),
                "revealed": {name: tuple(values) for name, values in document["revealed"].items()},
                "hidden": tuple(document["hidden"]),
                "not_claimed": tuple(document["not_claimed"]),
                "steps": tuple(Step(**step) for step in document["steps"]),
            }
        )


class Clock:
    """Times the steps of one verification."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._last = time.monotonic()

    def step(self, name: str) -> None:
        """Record that a step held, and the time since the one before."""
        now = time.monotonic()
        self.steps.append(Step(name=name, seconds=now - self._last))
        self._last = now


def describe(
    manifest: Manifest,
    sealed: SealedPlan,
    trust_root: str,
    policy: VerifierPolicy | None,
    measured: Measured | None,
    revealed: Mapping[str, tuple[float, ...]],
    steps: tuple[Step, ...],
) -> Verdict:
    """The verdict of a verification whose every step held.

    Args:
        manifest: The run.
        sealed: Its plan.
        trust_root: What was trusted.
        policy: The floors that the plan was held to.
        measured: What sample inputs showed.
        revealed: Per revealed boundary, its real values.
        steps: What was checked.
    """
    plan, trust = sealed.plan, sealed.srs_trust()
    return Verdict(
        ok=True,
        run_id=manifest.run_id,
        project=manifest.project,
        plan_digest=manifest.plan_sha256,
        trust_root=trust_root,
        statement=_sentence(manifest, plan, revealed),
        quantisation=_quantisation(plan),
        plan_chosen_by="prover" if trust_root == "model" else "author of the plan digest",
        policy=policy,
        measured=measured,
        revealed=revealed,
        hidden=tuple(b.name for b in plan.boundaries if b.name not in revealed),
        srs_trust=trust,
        not_claimed=(
            *NOT_CLAIMED,
            *([] if plan.commitment.salted else [UNSALTED]),
            *_leaks(plan, revealed),
            *([] if trust == "ceremony" else [INSECURE]),
        ),
        steps=steps,
    )


def refusal(run: str, error: VerificationError) -> dict[str, Any]:
    """A refusal as the command line's JSON object.

    Args:
        run: What was to be verified.
        error: Why it was refused.
    """
    return {
        "ok": False,
        "run_id": run,
        "error": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "subject": error.subject,
        "expected": error.expected,
        "got": error.got,
    }


def _leaks(plan: Plan, revealed: Mapping[str, Sequence[float]]) -> list[str]:
    """What native circuits show of hidden inputs; all else that is hidden follows from inputs."""
    hidden = [name for name in plan.model_inputs if name not in revealed]
    if not hidden or all(chunk.arguments.kind == "hinted" for chunk in plan.chunks):
        return []
    return [f"that the hidden {', '.join(hidden)} stays so: {LEAKY_NATIVE}"]


def _sentence(manifest: Manifest, plan: Plan, revealed: Mapping[str, Sequence[float]]) -> str:
    def end(names: Sequence[str]) -> str:
        hidden = [name for name in names if name not in revealed]
        places = {lookup.boundary: lookup.input for lookup in plan.lookups}
        called = dict.fromkeys(places.get(name, name) for name in names)
        return f"{', '.join(called)} ({'committed, not shown' if hidden else 'revealed'})"

    return (
        f"The model with SHA-256 {plan.model_sha256[:16]}..., quantised as plan "
        f"{manifest.plan_sha256[:16]}... says, maps {end(plan.model_inputs)} to "
        f"{end(plan.model_outputs)}."
    )


def _quantisation(plan: Plan) -> str:
    weights = sorted({_weight_step(chunk.arguments) for chunk in plan.chunks})
    outputs = sorted({plan.boundary(name).scale for name in plan.model_outputs})
    # A rewrite's number may be one of bits that weights keep: whoever relies on the run should see.
    rewrites = Counter(f"{step.name} {step.parameter or ''}".strip() for step in plan.rewrites)
    applied = ", ".join(
        f"{what} ({counted(count, 'time')})" for what, count in sorted(rewrites.items())
    )
    return (
        f"inputs in steps of 2^-{plan.input_scale}, weights of "
        f"{', '.join(weights)}, outputs of "
        f"{', '.join(f'2^-{scale}' for scale in outputs)}"
        + (f"; rewritten by {applied}" if applied else "")
    )


def _weight_step(arguments: CircuitArguments) -> str:
    if arguments.kind == "hinted":
        return f"about 2^-{arguments.logrows}"
    return f"2^-{arguments.param_scale}"

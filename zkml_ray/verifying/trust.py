"""What a plan must satisfy before anything it pins is relied on.

Three kinds of checks, from cheap to dear:

- `check_arguments`, `check_topology`: the plan uses only arguments that are known to be sound, its
  layouts follow from them, and its chunks and boundaries fit together. Checked for both trust
  roots: who published a plan digest may have erred.
- `check_pins`: exactly one key per chunk and one SRS per size, none of them misnamed.
- `check_rebuilt`: chunks, settings, SRS parts and verifying keys made again from the verifier's
  own model. The plan's author is not believed in anything: of his arguments only those above are
  used, and every digest is recomputed.

Not here, because no argument of a plan can change it: `backend.run_args` fixes inputs that are
private (or, in hinted circuits, committed to), hashed outputs, weights in the key, and range checks
on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zkml_ray import limits
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.hinted.numbers import PRECISION_BITS, Arithmetic
from zkml_ray.circuits import backend
from zkml_ray.circuits.srs import trust_of
from zkml_ray.commitments.packing import PACKED_BITS, PackingSpec
from zkml_ray.errors import (
    ChunkingError,
    ConfigError,
    FieldRangeError,
    LimitExceededError,
    OutOfMemoryError,
    StageError,
    TrustRootError,
    VerificationError,
    out_of_memory,
)
from zkml_ray.schema.plan import BoundaryPlan, ChunkPlan, LayoutSpec, Plan, SealedPlan

if TYPE_CHECKING:
    from zkml_ray.chunking.graph import ModelGraph
    from zkml_ray.chunking.load import LoadedModel
    from zkml_ray.circuits.derive import DerivedCircuits

HINTED_REWRITES: Final = frozenset({"split-output"})
"""Rewrites of hinted plans. The others are for ezkl's own arithmetic, and make some tensors small,
which a hinted chunk would round away."""

ACCUMULATION_BITS: Final = 40
"""Room for the number of terms of a sum and for weights beyond the range."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRoot:
    """What the verifier trusts. Exactly one of the two is given.

    Attributes:
        model: The verifier's own copy of the ONNX model; everything is re-built from it.
        plan_digest: Digest of a sealed plan that someone trusted re-built.
    """

    model: LoadedModel | None = None
    plan_digest: str | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.plan_digest is None):
            raise ConfigError(
                "verify needs exactly one trust root: the model file (--model) or the digest of a "
                "plan re-built from it (--plan-digest); a run cannot vouch for itself"
            )
        if self.plan_digest is not None and not _DIGEST.fullmatch(self.plan_digest):
            raise ConfigError(
                f"{self.plan_digest[:100]!r} is no plan digest: 64 lowercase hexadecimal digits "
                "were expected (zkml-ray plan --verify-keys prints one)"
            )

    def for_plan(self, plan: Plan) -> TrustRoot:
        """The same, a model's look-ups standing where a plan has them."""
        if self.model is None:
            return self
        return replace(self, model=replace(self.model, tokens_outside=bool(plan.lookups)))

    @property
    def name(self) -> str:
        """Which of the two it is."""
        return "model" if self.model is not None else "plan digest"


def check_named(trust: TrustRoot, sealed: SealedPlan, digest: str) -> None:
    """The cheap half of the trust root: the plan, or its model, is the trusted one.

    Raises:
        TrustRootError: It is another one.
    """
    if trust.model is None:
        if digest != trust.plan_digest:
            raise TrustRootError(
                "the run's plan is not the trusted one",
                expected=str(trust.plan_digest),
                got=digest,
                code="plan-digest",
            )
        return
    own = sha256_hex(trust.model.data)
    if own != sealed.plan.model_sha256:
        raise TrustRootError(
            f"the run was made with another model than {trust.model.name}",
            expected=own,
            got=sealed.plan.model_sha256,
            code="model-digest",
        )


def check_arguments(plan: Plan) -> None:
    """Only arguments known to be sound, and layouts that follow from them.

    Raises:
        VerificationError: Code "plan-arguments" or "plan-layout".
    """
    _require_ezkl(plan)
    if not 1 <= plan.input_scale <= limits.MAX_SCALE_BITS:
        raise _argument("input_scale", plan.input_scale, f"1 to {limits.MAX_SCALE_BITS}")
    dimensions = [name for name, _ in plan.dimensions]
    if dimensions != sorted(set(dimensions)):
        raise _argument("dimensions", dimensions, "each name once, sorted")
    if sum(boundary.layout.element_count for boundary in plan.boundaries) > limits.MAX_ELEMENTS:
        raise _argument("boundaries", "too many elements", f"at most {limits.MAX_ELEMENTS} in all")
    try:
        packing = PackingSpec.for_decomposition(
            plan.commitment.decomp_base, plan.commitment.decomp_legs
        )
    except FieldRangeError as error:
        raise VerificationError(
            f"the plan's commitment arguments: {error}", code="plan-arguments"
        ) from None
    for chunk in plan.chunks:
        _check_circuit(chunk, plan, packing)
    foreign = sorted({step.name for step in plan.rewrites} - HINTED_REWRITES)
    if foreign and any(chunk.arguments.kind == "hinted" for chunk in plan.chunks):
        raise _argument("rewrites", foreign, "those of hinted circuits")
    for boundary in plan.boundaries:
        _check_layout(boundary, plan, packing)


def check_topology(plan: Plan) -> None:
    """Every chunk once, every edge accounted for, one input scale, inputs before outputs.

    Raises:
        VerificationError: Code "plan-topology".
    """
    position = {chunk.id: index for index, chunk in enumerate(plan.chunks)}
    if list(position) != [f"chunk-{index:03d}" for index in range(len(plan.chunks))]:
        raise _topology("its chunks are not numbered from 0 in order", "")
    boundaries = {boundary.name: boundary for boundary in plan.boundaries}
    if len(boundaries) != len(plan.boundaries):
        raise _topology("it names a boundary twice", "")
    producers: dict[str, str] = {}
    consumers: dict[str, list[str]] = {name: [] for name in boundaries}
    nodes: set[str] = set()
    for chunk in plan.chunks:
        if nodes & set(chunk.nodes) or len(set(chunk.nodes)) != len(chunk.nodes):
            raise _topology(f"{chunk.id} repeats a node", chunk.id)
        nodes.update(chunk.nodes)
        if len(set(chunk.touched())) != len(chunk.touched()) or not chunk.inputs:
            raise _topology(f"{chunk.id} reads nothing, or touches a boundary twice", chunk.id)
        for name in chunk.touched():
            if name not in boundaries:
                raise _topology(f"{chunk.id} touches an unknown boundary", chunk.id)
        for name in chunk.inputs:
            consumers[name].append(chunk.id)
        if chunk.arguments.input_scale != plan.input_scale:
            raise _topology(f"{chunk.id} has another input scale than the plan", chunk.id)
        for name in chunk.outputs:
            if name in producers:
                raise _topology(f"boundary {name} has two producers", name)
            producers[name] = chunk.id
    inputs, outputs = set(plan.model_inputs), set(plan.model_outputs)
    for name, boundary in boundaries.items():
        if boundary.producer != producers.get(name) or list(boundary.consumers) != consumers[name]:
            raise _topology(f"boundary {name}: producer or consumers are not the chunks'", name)
        if (name in inputs) != (boundary.producer is None):
            raise _topology(f"boundary {name} needs a producer, or is an input of the model", name)
        if not boundary.consumers and (boundary.producer is None or name not in outputs):
            raise _topology(f"boundary {name} leads nowhere", name)
        made = -1 if boundary.producer is None else position[boundary.producer]
        if any(position[reader] <= made for reader in boundary.consumers):
            raise _topology(f"boundary {name} is read before it is made", name)
        # What a circuit makes may have a higher scale than what it reads (docs/adr/0012).
        if boundary.scale < plan.input_scale:
            raise _topology(f"boundary {name} has a lower scale than the plan's inputs", name)
        if boundary.producer is None and boundary.scale != plan.input_scale:
            raise _topology(f"input {name} has another scale than the plan", name)
    for ends in (plan.model_inputs, plan.model_outputs):
        if not set(ends) <= set(boundaries) or len(set(ends)) != len(ends):
            raise _topology("an input or output of the model is no boundary, or named twice", "")


def check_pins(sealed: SealedPlan) -> None:
    """Exactly one key per chunk in order, exactly one SRS per size, each called what it is.

    Raises:
        VerificationError: Code "plan-pins" or "srs-trust".
    """
    if [pin.chunk for pin in sealed.verifying_keys] != [chunk.id for chunk in sealed.plan.chunks]:
        raise VerificationError(
            "the plan does not pin exactly one verifying key per chunk", code="plan-pins"
        )
    needed = sorted({chunk.arguments.logrows for chunk in sealed.plan.chunks})
    pinned = [pin.logrows for pin in sealed.srs]
    if pinned != needed:
        raise VerificationError(
            "the plan does not pin exactly one SRS per circuit size",
            expected=str(needed),
            got=str(pinned),
            code="plan-pins",
        )
    for pin in sealed.srs:
        if pin.trust != trust_of(pin.logrows, pin.sha256):
            raise VerificationError(
                f"the SRS of logrows {pin.logrows} is called {pin.trust}, which its digest is not",
                expected=trust_of(pin.logrows, pin.sha256),
                got=pin.trust,
                code="srs-trust",
            )


def check_rebuilt(
    model: LoadedModel, graph: ModelGraph, sealed: SealedPlan, srs_paths: Mapping[int, Path]
) -> tuple[DerivedCircuits, dict[str, bytes]]:
    """The dear half of the trust root "model": everything made again, and compared as it is made.

    Args:
        model: The verifier's own copy.
        graph: What `extent.check_structure` made of it.
        sealed: The plan to check.
        srs_paths: Per logrows, the whole SRS file, its digest checked.

    Returns:
        The circuits, and per chunk id the verifying key that was made.

    Raises:
        TrustRootError: Code "model-circuits" or "model-keys".
    """
    # Imported here: the trust root "plan digest" needs neither onnx nor any chunking.
    from zkml_ray.circuits.derive import rederive_circuits
    from zkml_ray.circuits.sealing import make_keys

    plan = sealed.plan

    def agrees(chunk: ChunkPlan) -> None:
        """One circuit that differs is enough: no other is made then."""
        if chunk != plan.chunk(chunk.id):
            raise TrustRootError(
                f"the plan is not what the model gives: {chunk.id} differs",
                expected=chunk.digest(),
                got=plan.chunk(chunk.id).digest(),
                subject=chunk.id,
                code="model-circuits",
            )

    try:
        rebuilt = rederive_circuits(model, plan, graph, agrees)
    except (OSError, TrustRootError, LimitExceededError):
        raise
    except (MemoryError, OutOfMemoryError):
        raise out_of_memory("circuits are made again") from None
    except Exception as error:
        # Whatever onnx or onnx-ir say of the model under a stranger's arguments.
        raise TrustRootError(
            f"the plan does not fit the model: {type(error).__name__}: {str(error)[:500]}",
            code="model-circuits",
        ) from None
    if rebuilt.plan != plan:
        raise TrustRootError(
            f"the plan is not what the model gives: {_first_difference(rebuilt.plan, plan)}",
            expected=rebuilt.plan.digest(),
            got=plan.digest(),
            code="model-circuits",
        )
    srs_pins = {pin.logrows: pin.sha256 for pin in sealed.srs}
    keys: dict[str, bytes] = {}
    for chunk, pin in zip(plan.chunks, sealed.verifying_keys, strict=True):
        logrows = chunk.arguments.logrows
        try:
            made = make_keys(rebuilt.files[chunk.id], srs_paths[logrows], srs_pins[logrows])
        except StageError as error:
            raise TrustRootError(
                f"{chunk.id}: the plan's arguments give no verifying key: {error}",
                expected=pin.sha256,
                subject=chunk.id,
                code="model-keys",
            ) from None
        vk = made.vk.read_bytes()
        if sha256_hex(vk) != pin.sha256:
            raise TrustRootError(
                f"{chunk.id}: its verifying key is not the one that the model gives",
                expected=sha256_hex(vk),
                got=pin.sha256,
                subject=chunk.id,
                code="model-keys",
            )
        keys[chunk.id] = vk
    return rebuilt, keys


def _require_ezkl(plan: Plan) -> None:
    if plan.ezkl_version != backend.EZKL_VERSION:
        raise VerificationError(
            "the plan is for another ezkl",
            expected=backend.EZKL_VERSION,
            got=plan.ezkl_version,
            code="ezkl-version",
        )


def _check_circuit(chunk: ChunkPlan, plan: Plan, packing: PackingSpec) -> None:
    arguments = chunk.arguments
    bits = arguments.decomp_legs * math.log2(arguments.decomp_base)
    if bits > limits.MAX_COMMITTED_BITS:
        raise _argument(
            f"{chunk.id} decomposition", bits, f"at most {limits.MAX_COMMITTED_BITS} bits"
        )
    if arguments.decomp_base**arguments.decomp_legs - 1 > packing.element_bound:
        raise _argument(
            f"{chunk.id} decomposition", bits, f"within +-{packing.element_bound}, as packing is"
        )
    # Before a rebase a value is a sum of products of at most this many factors; beyond the field's
    # 253 bits it would wrap around and be another integer.
    if bits * (arguments.scale_rebase_multiplier + 1) + ACCUMULATION_BITS > PACKED_BITS:
        raise _argument(
            f"{chunk.id} scale_rebase_multiplier",
            arguments.scale_rebase_multiplier,
            f"products within {PACKED_BITS} bits",
        )
    if not 1 <= arguments.param_scale <= limits.MAX_SCALE_BITS:
        raise _argument(
            f"{chunk.id} param_scale", arguments.param_scale, f"1..{limits.MAX_SCALE_BITS}"
        )
    low, high = arguments.lookup_range
    if plan.commitment.salts_apart and not plan.commitment.salted:
        raise _argument("commitment", "no salts, but apart", "salts apart where there are salts")
    if arguments.kind == "hinted":
        _check_hinted(chunk, plan, packing)
        return
    if arguments.range_bits:
        raise _argument(f"{chunk.id} range_bits", arguments.range_bits, "0 in a native circuit")
    if arguments.products != "packed" or chunk.weights_sha256 is not None:
        raise _argument(f"{chunk.id} products", arguments.products, "packed in a native circuit")
    _check_native_range(chunk, plan)
    if not -limits.MAX_LOOKUP <= low < 0 < high <= limits.MAX_LOOKUP:
        raise _argument(
            f"{chunk.id} lookup_range", (low, high), f"around 0, within +-{limits.MAX_LOOKUP}"
        )


def _check_native_range(chunk: ChunkPlan, plan: Plan) -> None:
    """Factors and small weights are written with as many bits as the range leaves them.

    With fewer they would be rounded, to zero in the end (docs/adr/0029).
    """
    arguments, commitment = chunk.arguments, plan.commitment
    taken_apart = arguments.decomp_base**arguments.decomp_legs
    if taken_apart < 1 << limits.MIN_NATIVE_BITS:
        raise _argument(
            f"{chunk.id} decomposition", taken_apart, f"2^{limits.MIN_NATIVE_BITS} or more"
        )
    if taken_apart != commitment.decomp_base**commitment.decomp_legs:
        raise _argument(
            f"{chunk.id} decomposition", taken_apart, "the range that boundaries are packed for"
        )


def _check_hinted(chunk: ChunkPlan, plan: Plan, packing: PackingSpec) -> None:
    """A hinted circuit's one table begins at zero, and its values fit what packing holds apart."""
    arguments = chunk.arguments
    try:
        numbers = Arithmetic(
            scale=arguments.input_scale,
            logrows=arguments.logrows,
            range_bits=arguments.range_bits,
        )
    except ChunkingError as error:
        raise _argument(f"{chunk.id} range_bits", error.message, "a range of two digits") from None
    table = (0, numbers.divisor - 1)
    if arguments.lookup_range != table:
        raise _argument(f"{chunk.id} lookup_range", arguments.lookup_range, f"{table}")
    if arguments.input_scale != plan.input_scale:
        raise _argument(f"{chunk.id} input_scale", arguments.input_scale, f"{plan.input_scale}")
    if arguments.logrows < arguments.input_scale + PRECISION_BITS:
        raise _argument(
            f"{chunk.id} logrows",
            arguments.logrows,
            f"at least {arguments.input_scale + PRECISION_BITS} at that scale",
        )
    # What a hinted circuit does not use may not differ from plan to plan either.
    if arguments.param_scale != arguments.input_scale or arguments.scale_rebase_multiplier != 1:
        raise _argument(
            f"{chunk.id} param_scale and scale_rebase_multiplier",
            (arguments.param_scale, arguments.scale_rebase_multiplier),
            f"{(arguments.input_scale, 1)} in a hinted circuit",
        )
    if numbers.value_bound > packing.injective_bound:
        raise _argument(
            f"{chunk.id} range_bits",
            arguments.range_bits,
            f"values within +-{packing.injective_bound}, as packing is",
        )
    if (chunk.weights_sha256 is not None) != (arguments.products == "challenge"):
        raise _argument(
            f"{chunk.id} products",
            f"{arguments.products}, with weights {chunk.weights_sha256}",
            "weights outside a circuit where a challenge checks products, and nowhere else",
        )
    if plan.commitment.salted and not plan.commitment.salts_apart:
        raise _argument("commitment", "salts beside values", "salts in elements of their own")


def _check_layout(boundary: BoundaryPlan, plan: Plan, packing: PackingSpec) -> None:
    try:
        derived = LayoutSpec.of(plan.commitment.leaf_layout(math.prod(boundary.shape), packing))
        boundary.metadata()
    except FieldRangeError as error:
        raise VerificationError(
            f"boundary {boundary.name}: {error}", subject=boundary.name, code="plan-layout"
        ) from None
    if derived != boundary.layout:
        raise VerificationError(
            f"boundary {boundary.name}: its layout does not follow from the plan's arguments",
            expected=str(derived.model_dump()),
            got=str(boundary.layout.model_dump()),
            subject=boundary.name,
            code="plan-layout",
        )


def _first_difference(ours: Plan, theirs: Plan) -> str:
    for name in Plan.model_fields:
        mine, got = getattr(ours, name), getattr(theirs, name)
        if mine != got:
            if isinstance(mine, tuple) and isinstance(got, tuple) and len(mine) == len(got):
                index = next(i for i, value in enumerate(mine) if value != got[i])
                return f"{name}[{index}] differs"
            return f"{name} differs"
    return "it differs"


def _argument(what: str, got: object, expected: str) -> VerificationError:
    return VerificationError(
        f"the plan's {what} is {got}; only {expected} is known to be sound",
        expected=expected,
        got=str(got),
        subject=what,
        code="plan-arguments",
    )


def _topology(problem: str, subject: str) -> VerificationError:
    return VerificationError(
        f"the plan's graph is not complete: {problem}", subject=subject, code="plan-topology"
    )

"""A planner who wants a verified plan whose answer is not the model's.

He draws what a plan may choose: kind of circuits, scale, weight bits, cuts, rows, columns, ranges,
rewrites and their parameters, commitments. What follows from a choice (layouts, digests, boundary
scales) he derives, as a verifier will: a plan that is not consistent is refused at once. A third of
his choices are drawn at large, a third set a few fields of an honest choice to their extremes, a
third change the worst plan that was accepted so far.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import onnx

from zkml_ray import limits
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.chunking.rewrite import PASSES, Rewrite, apply_rewrites, find_places
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import (
    committed_tensors,
    normalised_graph,
)
from zkml_ray.commitments.packing import PackingSpec
from zkml_ray.schema.plan import (
    BoundaryPlan,
    ChunkPlan,
    CircuitArguments,
    CommitmentArguments,
    LayoutSpec,
    Plan,
    RewriteStep,
)
from zkml_ray.verifying.extent import check_extent, check_structure
from zkml_ray.verifying.policy import VerifierPolicy, check_policy, check_weights
from zkml_ray.verifying.trust import check_arguments, check_topology

NONE: Final = "0" * 64

SCALES: Final = (*range(1, 21),)
DIGITS: Final = ((128, 4), (128, 2), (64, 3), (16384, 2), (1024, 4), (2, 16), (512, 2), (32, 3))
MULTIPLIERS: Final = (1, 1, 1, 2, 3, 5, 8)
LOGROWS: Final = (*range(8, 18),)
MAX_RANGE: Final = 12
"""Largest range that is tried beside those drawn at large: digits and rows have to go with it."""

NATIVE_LOGROWS: Final = 17
"""A native circuit computes the same with more rows, and its keys are not made here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a plan chooses; the rest follows.

    Attributes:
        kinds: Per chunk; repeated where there are more chunks.
        scale: Of inputs.
        param_scales: Per chunk, like `kinds`.
        multipliers: Per chunk.
        digits: Base and legs of the circuits' decompositions.
        columns: Inner columns.
        logrows: Per chunk, of hinted circuits.
        range_bits: Of hinted circuits.
        lookup: Largest number that native circuits look up, as a real number's bits.
        cuts: Where chunks end, as shares of the nodes.
        share: How likely a place is rewritten.
        bits: Parameter of rewrites that round weights; None: any.
        seed: Decides which places are rewritten, and how.
        commitment: How boundaries are committed to.
    """

    kinds: tuple[str, ...]
    scale: int
    param_scales: tuple[int, ...]
    multipliers: tuple[int, ...]
    digits: tuple[int, int]
    columns: int
    logrows: tuple[int, ...]
    range_bits: int
    lookup: int
    cuts: tuple[float, ...]
    share: float
    bits: int | None
    seed: int
    commitment: CommitmentArguments


class HostilePlanner:
    """Draws choices and makes plans of them.

    Attributes:
        worst: The choice that came out worst so far, and how bad it was.
    """

    def __init__(self, model: LoadedModel, seed: int) -> None:
        self._model = model
        self._draw = random.Random(seed)
        self._normalised = normalised_graph(model, {})
        self.worst: tuple[float, Choice] | None = None

    def choices(self) -> Iterator[Choice]:
        """Choices without end."""
        while True:
            yield self._at_large()
            yield self._extreme(self._honest())
            yield self._changed(self.worst[1] if self.worst else self._honest())

    def came_out(self, choice: Choice, badness: float) -> None:
        """Be told how far the answer of an accepted plan was off."""
        if self.worst is None or badness > self.worst[0]:
            self.worst = badness, choice

    # Choices.

    def _honest(self) -> Choice:
        draw = self._draw
        hinted = draw.random() < 0.5
        scale = draw.randint(limits.MIN_SCALE, 12)
        range_bits = draw.choice((5, 5, *range(MAX_RANGE + 1)))
        return Choice(
            kinds=("hinted" if hinted else "native",),
            scale=scale,
            param_scales=(scale,),
            multipliers=(1,),
            digits=self._digits_for(scale, range_bits) if hinted else (128, 4),
            columns=draw.choice((2, 4)),
            logrows=(scale + draw.randint(2, 4),),
            range_bits=range_bits,
            lookup=3,
            cuts=tuple(sorted(draw.random() for _ in range(draw.randint(0, 3)))),
            share=0.0 if hinted else 0.8,
            bits=scale,
            seed=draw.getrandbits(32),
            commitment=self._commitment(hinted, scale, range_bits),
        )

    def _digits_for(self, scale: int, range_bits: int) -> tuple[int, int]:
        return min(1 << -(-max(scale + 8, scale + range_bits + 2) // 2), 1 << 20), 2

    def _commitment(self, hinted: bool, scale: int, range_bits: int) -> CommitmentArguments:
        base, legs = self._digits_for(scale, range_bits) if hinted else (128, 4)
        return CommitmentArguments(decomp_base=base, decomp_legs=legs, salts_apart=hinted)

    def _at_large(self) -> Choice:
        draw, many = self._draw, range(self._draw.randint(1, 3))
        honest = self._honest()
        hinted = draw.random() < 0.5
        scale = draw.choice(SCALES)
        rows = [scale + draw.choice((1, 2, 2, 3, 4, 6)) for _ in many]
        range_bits = draw.choice((0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 20))
        digits = self._digits_for(scale, range_bits) if hinted else draw.choice(DIGITS)
        return replace(
            honest,
            kinds=tuple(
                draw.choice(("hinted", "native")) if draw.random() < 0.2 else
                ("hinted" if hinted else "native") for _ in many
            ),
            scale=scale,
            param_scales=tuple(
                scale if hinted and draw.random() < 0.9 else draw.choice(SCALES) for _ in many
            ),
            multipliers=tuple(1 if hinted else draw.choice(MULTIPLIERS) for _ in many),
            digits=digits,
            columns=draw.randint(1, 7),
            logrows=tuple(min(max(r, 8), 20) for r in rows),
            range_bits=range_bits,
            lookup=draw.choice((0, 1, 2, 3, 4, 6)),
            cuts=tuple(sorted(draw.random() for _ in range(draw.randint(0, 5)))),
            share=draw.choice((0.0, 0.3, 1.0)) if not hinted else draw.choice((0.0, 0.3)),
            bits=draw.choice((None, None, 4, 7, 8, 20)),
            commitment=CommitmentArguments(
                decomp_base=digits[0],
                decomp_legs=digits[1],
                max_slots=draw.choice((64, 128, 256, 1024)),
                salted=draw.random() < 0.8,
                salts_apart=hinted,
            ),
        )  # fmt: skip

    def _extreme(self, choice: Choice) -> Choice:
        """Some fields at the ends of what they can be."""
        for _ in range(self._draw.randint(1, 3)):
            choice = self._with(choice, ends=True)
        return choice

    def _changed(self, choice: Choice) -> Choice:
        for _ in range(self._draw.randint(1, 2)):
            choice = self._with(choice, ends=False)
        return choice

    def _with(self, choice: Choice, *, ends: bool) -> Choice:
        draw = self._draw

        def near(value: int, low: int, high: int) -> int:
            if ends:
                return draw.choice((low, high))
            return min(max(value + draw.choice((-2, -1, 1, 2)), low), high)

        least = limits.MIN_SCALE
        field = draw.choice(
            ("scale", "param", "multiplier", "rows", "range", "lookup", "cuts", "bits", "share",
             "digits", "columns", "slots", "seed")
        )  # fmt: skip
        hinted = "hinted" in choice.kinds
        if field == "scale":
            scale = near(choice.scale, least, 14)
            rows = tuple(max(8, scale + r - choice.scale) for r in choice.logrows)
            made = replace(choice, scale=scale, logrows=rows)
            return self._fitting(replace(made, param_scales=(scale,)) if hinted else made)
        if field == "param" and "hinted" not in choice.kinds:
            return replace(
                choice,
                param_scales=tuple(near(s, least, 20) for s in (*choice.param_scales, 7))[:3],
            )
        if field == "multiplier" and "hinted" not in choice.kinds:
            return replace(choice, multipliers=(near(choice.multipliers[0], 1, 6), 1))
        if field == "rows":
            return replace(choice, logrows=tuple(near(r, 8, 16) for r in choice.logrows))
        if field == "range":
            return self._fitting(replace(choice, range_bits=near(choice.range_bits, 0, MAX_RANGE)))
        if field == "lookup":
            return replace(choice, lookup=near(choice.lookup, 0, 10))
        if field == "cuts":
            count = draw.randint(0, 8)
            return replace(choice, cuts=tuple(sorted(draw.random() for _ in range(count))))
        if field == "bits":
            return replace(choice, bits=near(choice.bits or 8, least, 20))
        if field == "share":
            return replace(choice, share=draw.choice((0.0, 0.5, 1.0)))
        if field == "digits" and "hinted" not in choice.kinds:
            digits = draw.choice(DIGITS)
            wide = choice.commitment.model_copy(
                update={"decomp_base": digits[0], "decomp_legs": digits[1]}
            )
            return replace(choice, digits=digits, commitment=wide)
        if field == "columns":
            return replace(choice, columns=near(choice.columns, 1, 7))
        if field == "slots":
            slots = draw.choice((64, 96, 512, 4096))
            return replace(
                choice, commitment=choice.commitment.model_copy(update={"max_slots": slots})
            )
        return replace(choice, seed=draw.getrandbits(32))

    def _fitting(self, choice: Choice) -> Choice:
        """Hinted circuits and commitments for the scale and the range of a choice."""
        if "hinted" not in choice.kinds:
            return choice
        base, legs = self._digits_for(choice.scale, choice.range_bits)
        wide = choice.commitment.model_copy(update={"decomp_base": base, "decomp_legs": legs})
        return replace(choice, digits=(base, legs), commitment=wide)

    # Plans.

    def rewritten(self, choice: Choice) -> tuple[ModelGraph, list[Rewrite]]:
        """The graph that is cut, and how it was made.

        Raises:
            ZkmlRayError: A rewrite does not fit.
        """
        draw = random.Random(choice.seed)
        proto: onnx.ModelProto = self._normalised.proto
        chosen: list[Rewrite] = []
        names = ["split-output"] if "hinted" in choice.kinds and draw.random() < 0.95 else PASSES
        for name in names if choice.share else ():
            found = []
            places = find_places(proto, name)
            if name == "split-output":
                weighted = [
                    n.name for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")
                ]
                places = [
                    Rewrite(name=name, node=node, parameter=draw.choice((2, 3, 4)))
                    for node in weighted
                ]
            for place in places:
                if draw.random() >= choice.share:
                    continue
                low, high = PASSES[name].parameters
                if name == "split-output" or low == high:
                    found.append(place)
                    continue
                bits = choice.bits if choice.bits is not None else draw.randint(low, high)
                found.append(replace(place, parameter=min(max(bits, low), high)))
            proto = apply_rewrites(proto, found)
            chosen += found
        return ModelGraph(proto), chosen

    def arguments(self, choice: Choice, index: int) -> CircuitArguments:
        """The arguments of a chunk's circuit."""
        kind = choice.kinds[index % len(choice.kinds)]
        logrows = choice.logrows[index % len(choice.logrows)]
        table = (1 << choice.lookup) << choice.scale
        hinted = kind == "hinted"
        return CircuitArguments.model_validate(
            {
                "input_scale": choice.scale,
                "param_scale": choice.param_scales[index % len(choice.param_scales)],
                "scale_rebase_multiplier": choice.multipliers[index % len(choice.multipliers)],
                "decomp_base": choice.digits[0],
                "decomp_legs": choice.digits[1],
                "num_inner_cols": choice.columns,
                "logrows": logrows if hinted else NATIVE_LOGROWS,
                "lookup_range": (0, (1 << logrows) - 33) if hinted else (-table, table),
                "kind": kind,
                "range_bits": choice.range_bits if hinted else 0,
            }
        )

    def draft(self, choice: Choice) -> Plan:
        """The plan but for its digests and what circuits say: most refusals need no more.

        Raises:
            ZkmlRayError: There is no such plan.
            ValueError: A number has no place in a plan.
        """
        graph, rewrites = self.rewritten(choice)
        names = list(graph.nodes)
        ends = sorted({round(cut * len(names)) for cut in choice.cuts} - {0, len(names)})
        parts = [names[a:b] for a, b in zip([0, *ends], [*ends, len(names)], strict=True)]
        crossings = graph.crossings(parts)
        commitment = choice.commitment
        packing = PackingSpec.for_decomposition(commitment.decomp_base, commitment.decomp_legs)
        committed = committed_tensors(crossings, packing, commitment)
        ids = [f"chunk-{index:03d}" for index in range(len(parts))]
        return Plan(
            ezkl_version=backend.EZKL_VERSION,
            model_sha256=sha256_hex(self._model.data),
            normalised_sha256=NONE,
            dimensions=(),
            rewrites=tuple(
                RewriteStep(name=r.name, node=r.node, parameter=r.parameter) for r in rewrites
            ),
            input_scale=choice.scale,
            commitment=commitment,
            chunks=tuple(
                ChunkPlan(
                    id=ids[index],
                    nodes=tuple(nodes),
                    operators=tuple(graph.nodes[name].op_type for name in nodes),
                    inputs=tuple(c.tensor.name for c in crossings if index in c.consumers),
                    outputs=tuple(c.tensor.name for c in crossings if c.producer == index),
                    arguments=self.arguments(choice, index),
                    onnx_sha256=NONE,
                    settings_sha256=NONE,
                    num_rows=1,
                    poseidon_rows=1,
                )
                for index, nodes in enumerate(parts)
            ),
            boundaries=tuple(
                BoundaryPlan(
                    name=c.tensor.name,
                    shape=c.tensor.shape,
                    scale=choice.scale,
                    producer=None if c.producer is None else ids[c.producer],
                    consumers=tuple(ids[i] for i in c.consumers),
                    layout=LayoutSpec.of(committed[c.tensor.name].layout),
                )
                for c in crossings
            ),
            model_inputs=graph.inputs,
            model_outputs=graph.outputs,
        )


def check_plan(model: LoadedModel, plan: Plan, policy: VerifierPolicy | None = None) -> None:
    """All that a verifier who has the model holds a plan to before he derives its circuits.

    Args:
        model: His.
        plan: The plan.
        policy: His floors; None: the default ones.

    Raises:
        VerificationError: He refuses it.
    """
    policy = policy or VerifierPolicy()
    normalised = check_extent(model, plan)
    check_arguments(plan)
    check_policy(plan, policy)
    check_topology(plan)
    check_structure(normalised, plan)
    check_weights(plan, normalised, policy)

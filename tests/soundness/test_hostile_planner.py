"""No plan that a verifier of default policy accepts gives another answer than the model's.

A hostile planner (`hostile`) proposes plans; those that are accepted are computed natively, in the
whole numbers that would be proved, on real images: the ones whose decision is closest, and others.
An answer is the model's if every output is within the default tolerance of onnxruntime's
(docs/adr/0022) and the largest is the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.accuracy import OurModel
from benchmarks.models.registry import MODELS
from zkml_ray.chunking.load import load_model, parse_model
from zkml_ray.circuits.derive import DerivedCircuits, normalised_graph, rederive_circuits
from zkml_ray.errors import VerificationError, ZkmlRayError
from zkml_ray.stages.comparison import default_tolerance
from zkml_ray.stages.reference import float_outputs
from zkml_ray.verifying.policy import VerifierPolicy

from . import hostile
from .hostile import Choice, HostilePlanner, check_plan
from .tally import NOTES

NO_FLOORS = VerifierPolicy(min_scale=1, min_weight_bits=1, min_table_bits=1, max_weight_loss=1)

CLOSE = 2
"""Images whose two largest outputs are closest."""

OTHERS = {"hinted": 6, "native": 1}
"""Further images, other ones for every plan; native circuits take ezkl a second each."""

REDERIVED = 10
"""Every so many accepted plans is derived once more, and must come out the same."""


@dataclass
class Found:
    """What a search came to.

    Attributes:
        proposed: Plans that were consistent: refused or accepted, but no nonsense.
        accepted: By kind of circuits.
        refused: By code.
        answers: Outputs of accepted plans that were compared.
        unanswered: Images that left the range of an accepted plan: there is no proof of them.
        worst: Largest error, as a share of the tolerance.
        wrong: Accepted plans whose answer is not the model's.
    """

    proposed: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    unanswered: int = 0
    worst: float = 0.0
    wrong: list[tuple[Choice, str]] = field(default_factory=list)

    def line(self, model: str) -> str:
        """For people."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.accepted.items()))
        return (
            f"hostile planner, {model}: {self.proposed} plans, {sum(self.refused.values())} "
            f"refused, accepted {kinds or 'none'}; {self.answers} answers, {self.unanswered} "
            f"inputs out of range; {len(self.wrong)} plans with another answer; largest error "
            f"{self.worst:.2f} of the tolerance"
        )


GAIN = 16.0

CLIPPED_MARGIN = 0.5
"""More than the tolerance at the least scale that is accepted."""


def clipped_digits() -> onnx.ModelProto:
    """The digits model, what it clips so large that small ranges end below the bounds.

    Nothing is rounded between a layer and its bounds; the layer behind them takes the gain back.
    """
    proto = onnx.load(MODELS["digits"].path)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    larger = {"conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"}
    for name in (*larger, "conv2.weight", "fc2.weight"):
        value = numpy_helper.to_array(constants[name])
        scaled = value * GAIN if name in larger else value / GAIN
        constants[name].CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), name))
    bounds = {"relu1": (0.0, GAIN), "relu2": (-0.5, 2.0), "relu3": (-0.25 * GAIN, 4 * GAIN)}
    for node in proto.graph.node:
        for end, value in zip(("low", "high"), bounds.get(node.name, ()), strict=False):
            node.op_type = "Clip"
            name = f"{node.name}.{end}"
            node.input.append(name)
            proto.graph.initializer.append(
                numpy_helper.from_array(np.array(value, dtype=np.float32), name)
            )
    onnx.checker.check_model(proto)
    return proto


class Judge:
    """Says how far an accepted plan's answers are off."""

    def __init__(self, name: str, seed: int) -> None:
        benchmark = MODELS["digits" if name == "clipped" else name]
        if name == "clipped":
            self.model = parse_model(clipped_digits().SerializeToString(), "clipped.onnx")
        else:
            self.model = load_model(benchmark.path)
        self._images = benchmark.inputs()
        self._draw = np.random.default_rng(seed)
        graph = normalised_graph(self.model, {})
        (source,), (target,) = graph.inputs, graph.outputs
        self._exact = [
            float_outputs(graph, {source: image[None]})[target].ravel().astype(np.float64)
            for image in self._images
        ]
        margins = [float(np.subtract(*np.sort(scores)[-1:-3:-1])) for scores in self._exact]
        # Clipped outputs may be all but equal: which is the largest then says nothing.
        least = CLIPPED_MARGIN if name == "clipped" else 0.0
        self._told_apart = [margin >= least for margin in margins]
        self._closest = [i for i in np.argsort(margins) if self._told_apart[i]][:CLOSE]

    def judge(self, circuits: DerivedCircuits, folder: Path, found: Found) -> Iterator[str]:
        """What is wrong with a plan's answers; counts them."""
        kinds = {chunk.arguments.kind for chunk in circuits.plan.chunks}
        others = min(OTHERS[kind] for kind in kinds)
        drawn = self._draw.integers(len(self._images), size=others).tolist()
        quantised = OurModel(circuits, folder)
        for image in (*self._closest, *drawn):
            exact = self._exact[image]
            try:
                got = quantised.outputs(self._images[image]).ravel()
            except (RuntimeError, ZkmlRayError):
                found.unanswered += 1
                continue
            found.answers += 1
            tolerance = default_tolerance(float(np.abs(exact).max()), circuits.plan.input_scale)
            error = float(np.abs(got - exact).max())
            found.worst = max(found.worst, error / tolerance)
            if error > tolerance:
                yield f"image {image}: off by {error:.3g}, {tolerance:.3g} is the tolerance"
            if self._told_apart[image] and int(got.argmax()) != int(exact.argmax()):
                yield f"image {image}: class {got.argmax()}, the model says {exact.argmax()}"


def searched(
    name: str, plans: int, folder: Path, *, seed: int, policy: VerifierPolicy | None = None
) -> Found:
    """Search until so many plans were proposed."""
    judge, found = Judge(name, seed), Found()
    planner = HostilePlanner(judge.model, seed)
    for choice in planner.choices():
        if found.proposed >= plans:
            break
        try:
            draft = planner.draft(choice)
        except (ZkmlRayError, ValueError):
            continue  # no plan: the document has no such number, or a rewrite does not fit
        found.proposed += 1
        try:
            check_plan(judge.model, draft, policy)
            circuits = rederive_circuits(judge.model, draft)
            check_plan(judge.model, circuits.plan, policy)
        except VerificationError as error:
            found.refused[error.code] += 1
            continue
        except (ZkmlRayError, ValueError):
            found.refused["model-circuits"] += 1
            continue
        kinds = "/".join(sorted({chunk.arguments.kind for chunk in circuits.plan.chunks}))
        found.accepted[kinds] += 1
        before = found.worst
        work = folder / f"{found.proposed:04d}"
        work.mkdir()
        found.worst = 0.0
        problems = list(judge.judge(circuits, work, found))
        planner.came_out(choice, found.worst)
        found.worst = max(before, found.worst)
        found.wrong += [(choice, problem) for problem in problems[:1]]
        if problems or sum(found.accepted.values()) % REDERIVED == 1:
            assert rederive_circuits(judge.model, circuits.plan).plan == circuits.plan
    NOTES.append(found.line(name))
    return found


@pytest.mark.parametrize(
    ("name", "plans"),
    [
        pytest.param("digits", 20, id="digits-20"),
        pytest.param("clipped", 16, id="clipped-16"),
        pytest.param("lenet5", 5, id="lenet5-5"),
        pytest.param("digits", 500, id="digits-500", marks=pytest.mark.slow),
        pytest.param("clipped", 500, id="clipped-500", marks=pytest.mark.slow),
        pytest.param("lenet5", 500, id="lenet5-500", marks=pytest.mark.slow),
    ],
)
def test_no_accepted_plan_gives_another_answer(name: str, plans: int, tmp_path: Path) -> None:
    found = searched(name, plans, tmp_path, seed=plans)
    assert found.proposed == plans
    assert found.answers > plans // 2, "nothing was tried"
    assert not found.wrong


def test_planner_finds_another_answer_where_there_are_no_floors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is able to, among scales that no floor keeps out."""
    monkeypatch.setattr(hostile, "SCALES", (1, 2))
    found = searched("digits", 24, tmp_path, seed=1, policy=NO_FLOORS)
    assert found.wrong

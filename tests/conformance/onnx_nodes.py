"""ONNX's own node tests, each planned, its circuits run, and compared with what ONNX expects.

The `onnx` package ships a model, inputs and outputs for every operator and most of its attributes.
Taken are those whose inputs and outputs are tensors, the outputs float32. Whole-number and truth
inputs, which circuits have none of, are made constants. Of several float32 inputs either all stay
inputs or, in a second variant, all but the first become constants: what the operator's weights are
in a real model.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.errors import ZkmlRayError
from zkml_ray.scratch import scratch_folder
from zkml_ray.stages.accuracy import quantised_boundaries, real_values
from zkml_ray.stages.plan import CircuitKind, PlanOptions, plan

SCALE: Final = 10
ERROR: Final = 0.02
"""An output is right where it is off by no more than this, twenty steps of the scale, ..."""

SHARE: Final = 0.01
"""... and this share of what is expected: a product of rounded numbers is off by a share."""

RANGE_BITS: Final = 10
"""Range of hinted circuits: the tests count up to a few hundred."""

Outcome = Literal["right", "refused", "wrong", "traceback"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("right", "refused", "wrong", "traceback")
Array = npt.NDArray[Any]

_INPUTS: Final = frozenset(
    {TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCase:
    """One variant of one test.

    Attributes:
        name: ONNX's name of the test, and the variant.
        operator: What it is counted under.
        model: The model.
        feeds: Its inputs.
        expected: Its outputs.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a case.

    Attributes:
        case: Its name.
        operator: What it is counted under.
        outcome: One of `OUTCOMES`.
        detail: The error in units of the tolerance, or the message.
    """

    case: str
    operator: str
    outcome: Outcome
    detail: str


def node_cases() -> Iterator[NodeCase]:
    """Every case, in the order of ONNX's modules."""
    for test in _collected():
        graph = test.model.graph
        if "_expanded" in test.name or not _is_taken(graph):
            continue
        inputs, outputs = test.data_sets[0]
        values = dict(zip([value.name for value in graph.input], inputs, strict=True))
        expected = dict(zip([value.name for value in graph.output], outputs, strict=True))
        floats = [v.name for v in graph.input if _element(v) == TensorProto.FLOAT]
        for kept, variant in ((floats, "all inputs"), (floats[:1], "one input")):
            if variant == "one input" and len(floats) == 1:
                continue
            yield NodeCase(
                name=f"{test.name}, {variant}",
                operator=graph.node[0].op_type if len(graph.node) == 1 else "several",
                model=_with_constants(test.model, values, kept),
                feeds={name: values[name] for name in kept},
                expected=expected,
            )


def outcome(case: NodeCase, circuits: CircuitKind) -> Result:
    """Plan a case, run its circuits and compare."""

    def result(what: Outcome, detail: str) -> Result:
        return Result(case=case.name, operator=case.operator, outcome=what, detail=detail)

    options = PlanOptions(
        scale=SCALE, circuits=circuits, layers_per_chunk=1000, range_bits=RANGE_BITS
    )
    try:
        model = parse_model(case.model.SerializeToString(), "case.onnx")
        derived = plan(model, options)
        with scratch_folder() as folder:
            cache = KeyCache(folder)
            compiled = {
                name: cache.circuit(files.onnx, files.settings)
                for name, files in derived.files.items()
            }
            feeds = {name: case.feeds[name] for name in derived.plan.model_inputs}
            found = quantised_boundaries(derived.plan, compiled.__getitem__, feeds)
    except ZkmlRayError as error:
        return result("refused", f"{type(error).__name__}: {error}")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return result("traceback", f"{type(error).__name__}: {error} ({place.name})")
    worst = 0.0
    for name in derived.plan.model_outputs:
        want = np.asarray(case.expected[name], dtype=np.float64)
        got = real_values(derived.plan.boundary(name), found[name])
        if got.shape != want.shape:
            return result("wrong", f"{name} has shape {got.shape} instead of {want.shape}")
        off = np.abs(got - want) / (ERROR + SHARE * np.abs(want))
        worst = max(worst, float(np.nan_to_num(off, nan=np.inf).max(initial=0.0)))
    return result("right" if worst <= 1 else "wrong", f"{worst:.3g}")


def table(results: Iterable[Result]) -> list[str]:
    """Counts by operator, and their sum."""
    counts: dict[str, Counter[str]] = {}
    for found in results:
        counts.setdefault(found.operator, Counter())[found.outcome] += 1
    lines = [f"{'operator':26}" + "".join(f"{name:>10}" for name in OUTCOMES)]
    for operator, counted in sorted(counts.items()):
        lines.append(f"{operator:26}" + "".join(f"{counted[name] or '-':>10}" for name in OUTCOMES))
    total: Counter[str] = sum(counts.values(), Counter())
    lines.append(f"{'all':26}" + "".join(f"{total[name]:>10}" for name in OUTCOMES))
    whole = sum(1 for counted in counts.values() if set(counted) == {"right"})
    lines.append(f"operators that are right in every case: {whole} of {len(counts)}")
    return lines


def _collected() -> Sequence[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found: Sequence[Any] = collect_testcases(None)
        return found


def _is_taken(graph: onnx.GraphProto) -> bool:
    if not all(v.type.HasField("tensor_type") for v in (*graph.input, *graph.output)):
        return False
    read = [_element(value) for value in graph.input]
    return (
        TensorProto.FLOAT in read
        and _INPUTS.issuperset(read)
        and {_element(value) for value in graph.output} == {TensorProto.FLOAT}
    )


def _element(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _with_constants(
    model: onnx.ModelProto, values: Mapping[str, Array], kept: Sequence[str]
) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    inputs = list(copy.graph.input)
    del copy.graph.input[:]
    for value in inputs:
        if value.name in kept:
            copy.graph.input.append(value)
        else:
            tensor = numpy_helper.from_array(np.asarray(values[value.name]), value.name)
            copy.graph.initializer.append(tensor)
    return copy

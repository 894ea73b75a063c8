"""Random graphs, cut at random, through ezkl with commitments: the integers are the whole model's.

Only operators without a rounding, with whole-numbered weights: then quantised chunk by chunk must
equal quantised whole bit for bit, whatever tract fuses where no cut lies between.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.unit.chunking.test_rejoin import EXACT, random_models, random_partition
from tests.zoo.quantised import Integers, chained, fixed_arguments, whole
from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import parse_model
from zkml_ray.circuits import backend
from zkml_ray.circuits.derive import derive_circuits, normalised_graph
from zkml_ray.errors import RangeExceededError
from zkml_ray.schema.plan import CommitmentArguments
from zkml_ray.stages.accuracy import read_samples
from zkml_ray.stages.inputs import Arrays

SCALE = 6

SLOW_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


class UncutError(Exception):
    """ezkl refuses the uncut model: there is nothing to compare with."""


def uncut(graph: ModelGraph, arrays: Arrays, folder: Path) -> dict[str, Integers]:
    """The uncut model's integers.

    Seen where two outputs are one tensor for tract (an Identity). A chunk's outputs are leaves,
    where that does not occur.
    """
    try:
        return whole(graph, fixed_arguments(SCALE), arrays, folder)
    except RangeExceededError:
        raise
    except backend.BackendError:
        raise UncutError from None


def check_cut_at_random(data: st.DataObject, outcomes: Counter[str]) -> None:
    proto = data.draw(random_models(EXACT, whole_numbers=True))
    model = parse_model(proto.SerializeToString(), "random.onnx")
    graph = normalised_graph(model, {})
    parts = random_partition(data.draw, graph)
    crossings = graph.crossings(parts)
    # A part that reads constants alone is refused, as it should be.
    assume(all(any(i in c.consumers for c in crossings) for i in range(len(parts))))
    commitment = CommitmentArguments(salted=data.draw(st.booleans()))

    circuits = derive_circuits(
        model,
        graph,
        dimensions={},
        parts=parts,
        input_scale=SCALE,
        commitment=commitment,
        arguments=lambda _chunk_id, _path, scale: fixed_arguments(scale),
    )
    assert sorted(n for chunk in circuits.plan.chunks for n in chunk.nodes) == sorted(graph.nodes)
    (arrays, *_) = read_samples(graph, [], seed=data.draw(st.integers(0, 9)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            got = chained(circuits, arrays, Path(folder))
            expected = uncut(graph, arrays, Path(folder))
        except (RangeExceededError, UncutError) as error:
            outcomes[type(error).__name__] += 1
            assume(False)
        outcomes["compared"] += 1
        for name in graph.outputs:
            assert got[name] == expected[name]


def check_many(examples: int) -> None:
    """So many random graphs, and no fewer than half of those tried were compared."""
    outcomes: Counter[str] = Counter()

    @settings(deadline=None, max_examples=examples, suppress_health_check=SLOW_CHECKS)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        check_cut_at_random(data, outcomes)

    check()
    print(f"random graphs cut at random: {dict(outcomes)}")
    assert outcomes["compared"] >= examples
    assert outcomes["compared"] >= outcomes.total() / 2


def test_random_graph_cut_at_random_gives_the_whole_models_integers() -> None:
    check_many(5)


@pytest.mark.slow
def test_many_random_graphs_cut_at_random_give_the_whole_models_integers() -> None:
    check_many(60)

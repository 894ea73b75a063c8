"""A plan's graph, pins and arguments with one thing wrong in each: on paper, nothing is planned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests import zoo
from tests.unit.paper_run import LOGROWS, digest_of, paper_plan, paper_run
from zkml_ray import PlanOptions
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.load import load_model
from zkml_ray.errors import ConfigError, TrustRootError, VerificationError
from zkml_ray.schema.plan import CommitmentArguments, Plan, SealedPlan
from zkml_ray.stages.plan import plan as make_plan
from zkml_ray.verifying.extent import check_extent, check_structure
from zkml_ray.verifying.trust import (
    TrustRoot,
    check_arguments,
    check_named,
    check_pins,
    check_rebuilt,
    check_topology,
)

Json = dict[str, Any]


def edited(plan: Plan, edit: Callable[[Json], object]) -> Plan:
    document = plan.model_dump(mode="json")
    edit(document)
    return Plan.model_validate_json(json.dumps(document))


def refused(code: str, check: Callable[[], object], match: str = ".") -> None:
    with pytest.raises(VerificationError, match=match) as caught:
        check()
    assert caught.value.code == code


# The graph: x -> chunk-000 -> h; x and h -> chunk-001 -> y.

TWICE = {"boundary named twice": lambda d: d["boundaries"].append(d["boundaries"][0])}


def second_producer(document: Json) -> None:
    """Both chunks claim to make h, and every list agrees with one of them."""
    document["chunks"][1]["inputs"] = ["x"]
    document["chunks"][1]["outputs"] = ["h", "y"]
    document["boundaries"][1].update(producer="chunk-001", consumers=[])
    document["model_outputs"] = ["h", "y"]


def reads_what_it_makes(document: Json) -> None:
    """h is made by the chunk after the one that reads it."""
    document["chunks"][0].update(inputs=["x", "h"], outputs=["g"])
    document["chunks"][1].update(inputs=["x", "g"], outputs=["h", "y"])
    h = document["boundaries"][1]
    g = {**h, "name": "g"}
    h.update(producer="chunk-001", consumers=["chunk-000"])
    document["boundaries"].insert(2, g)


def reads_nothing(document: Json) -> None:
    """The second chunk reads nothing, and nobody misses it."""
    document["chunks"][1]["inputs"] = []
    document["boundaries"][0]["consumers"] = ["chunk-000"]
    document["boundaries"][1]["consumers"] = []
    document["model_outputs"] = ["h", "y"]


def made_by_nobody(document: Json) -> None:
    document["chunks"][0]["outputs"] = ["g"]
    h = document["boundaries"][1]
    document["boundaries"].insert(2, {**h, "name": "g", "consumers": []})
    h["producer"] = None
    document["model_outputs"] = ["g", "y"]


GRAPHS: dict[str, Callable[[Json], object]] = {
    **TWICE,
    "two producers": second_producer,
    "second chunk reads nothing": reads_nothing,
    "made by nobody": made_by_nobody,
    "output of another chunk": lambda d: d["boundaries"][2].update(producer="chunk-000"),
    "read before it is made": reads_what_it_makes,
    "another producer": lambda d: d["boundaries"][1].update(producer="chunk-001"),
    "no producer": lambda d: d["boundaries"][1].update(producer=None),
    "a consumer less": lambda d: d["boundaries"][0].update(consumers=["chunk-001"]),
    "a consumer more": lambda d: d["boundaries"][1].update(consumers=["chunk-000", "chunk-001"]),
    "consumers in another order": lambda d: d["boundaries"][0]["consumers"].reverse(),
    "input that is not one of the model's": lambda d: d["model_inputs"].append("h"),
    "another input": lambda d: d.update(model_inputs=["h"]),
    "boundary that leads nowhere": lambda d: d["model_outputs"].__setitem__(0, "x"),
    "output of no chunk": lambda d: d["model_outputs"].append("z"),
    "output twice": lambda d: d.update(model_outputs=["y", "y"]),
    "input twice": lambda d: d.update(model_inputs=["x", "x"]),
    "node in two chunks": lambda d: d["chunks"][1].update(nodes=["n0"]),
    "node twice in a chunk": lambda d: d["chunks"][1].update(nodes=["n1", "n1"]),
    "chunk that reads nothing": lambda d: d["chunks"][0].update(inputs=[]),
    "chunk that touches a boundary twice": lambda d: d["chunks"][1].update(inputs=["h", "h"]),
    "unknown boundary": lambda d: d["chunks"][1].update(inputs=["x", "h", "z"]),
    "chunks in another order": lambda d: d["chunks"].reverse(),
    "chunk numbers with a gap": lambda d: d["chunks"][1].update(id="chunk-002"),
    "finer circuit": lambda d: d["chunks"][1]["arguments"].update(input_scale=8),
    "coarser circuit": lambda d: d["chunks"][1]["arguments"].update(input_scale=6),
    "coarser boundary": lambda d: d["boundaries"][1].update(scale=6),
    "finer input": lambda d: d["boundaries"][0].update(scale=8),
    "coarser input": lambda d: d["boundaries"][0].update(scale=6),
}


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_graph_with_one_thing_wrong_is_refused(name: str) -> None:
    plan = paper_plan()
    check_topology(plan)
    refused("plan-topology", lambda: check_topology(edited(plan, GRAPHS[name])))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("node in two chunks", "repeats a node"),
        ("node twice in a chunk", "repeats a node"),
        ("two producers", "two producers"),
        ("boundary named twice", "names a boundary twice"),
        ("chunks in another order", "not numbered from 0 in order"),
        ("second chunk reads nothing", "reads nothing"),
        ("made by nobody", "needs a producer"),
        ("read before it is made", "read before it is made"),
    ],
)
def test_refusal_says_what_is_wrong_with_the_graph(name: str, what: str) -> None:
    wrong = edited(paper_plan(), GRAPHS[name])
    refused("plan-topology", lambda: check_topology(wrong), match=what)


# Layouts and arguments.


@pytest.mark.parametrize(
    "field",
    ["element_count", "leaf_count", "leaf_size", "salts_per_leaf", "slots", "decomp_base",
     "decomp_legs", "stride_bits", "inner", "outer"],
)  # fmt: skip
def test_layout_that_does_not_follow_from_the_arguments_is_refused(field: str) -> None:
    plan = paper_plan()
    check_arguments(plan)
    assert len(plan.boundaries[0].layout.model_dump()) == 10, "a field has no case"
    for change in (1, -1):
        value = getattr(plan.boundaries[1].layout, field) + change
        if (field, value) in (("outer", 0), ("decomp_base", 1)):
            continue
        wrong = edited(
            plan, lambda d, value=value: d["boundaries"][1]["layout"].update({field: value})
        )
        refused("plan-layout", lambda w=wrong: check_arguments(w))


def test_layout_that_is_valid_but_another_is_refused() -> None:
    """More leaves of fewer slots: a layout of its own, as the plan's own arguments give it."""
    plan = paper_plan()
    other = paper_plan(plan.commitment.model_copy(update={"max_slots": 16}))
    layout = other.boundaries[1].layout.model_dump(mode="json")
    wrong = edited(plan, lambda d: d["boundaries"][1].update(layout=layout))
    refused("plan-layout", lambda: check_arguments(wrong))


@pytest.mark.parametrize(
    ("packed", "taken_apart", "what"),
    [((128, 2), (128, 2), r"2\^28 or more"), ((1024, 4), (128, 4), "boundaries are packed for")],
)
def test_native_circuit_takes_apart_enough_and_what_boundaries_are_packed_for(
    packed: tuple[int, int], taken_apart: tuple[int, int], what: str
) -> None:
    """With 2^14 its factors are rounded to zero, and another class is proved."""
    base, legs = packed
    plan = paper_plan(CommitmentArguments(decomp_base=base, decomp_legs=legs, max_slots=32))

    def edit(document: Json) -> None:
        for chunk in document["chunks"]:
            chunk["arguments"].update(decomp_base=taken_apart[0], decomp_legs=taken_apart[1])

    with pytest.raises(VerificationError, match=what) as caught:
        check_arguments(edited(plan, edit))
    assert caught.value.code == "plan-arguments"


@pytest.mark.parametrize(
    ("values", "what"),
    [
        # As wide as commitments of that width, but wider than any circuit may admit.
        ({"decomp_base": 1 << 11, "decomp_legs": 4}, "at most 40 bits"),
        # One digit wider than what the commitments pack.
        ({"decomp_base": 129}, "as packing is"),
        ({"decomp_base": 128, "decomp_legs": 5}, "as packing is"),
        ({"range_bits": 1}, "0 in a native circuit"),
    ],
)
def test_circuit_that_admits_more_than_is_known_to_be_sound_is_refused(
    values: Json, what: str
) -> None:
    wide = CommitmentArguments(decomp_base=1 << 11, decomp_legs=4, max_slots=32)
    plan = paper_plan(wide if values.get("decomp_base") == 1 << 11 else None)

    def edit(document: Json) -> None:
        document["chunks"][1]["arguments"].update(values)

    refused("plan-arguments", lambda: check_arguments(edited(plan, edit)), match=what)


def hinted(**values: object) -> Plan:
    def edit(document: Json) -> None:
        document["chunks"][1]["arguments"].update(values)

    return edited(paper_plan(hinted=True), edit)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"lookup_range": [0, 990]}, "lookup_range"),
        ({"lookup_range": [0, 992]}, "lookup_range"),
        ({"lookup_range": [-1, 991]}, "lookup_range"),
        ({"lookup_range": [1, 991]}, "lookup_range"),
        # Finer or coarser than the plan, and nothing else the matter.
        ({"input_scale": 6, "param_scale": 6}, "input_scale"),
        ({"input_scale": 8, "param_scale": 8}, "input_scale"),
        ({"logrows": 8, "lookup_range": [0, 223], "range_bits": 2}, "logrows"),
        ({"param_scale": 8}, "param_scale"),
        ({"param_scale": 6}, "param_scale"),
        ({"scale_rebase_multiplier": 2}, "param_scale"),
        ({"range_bits": 12}, "two digits"),
        ({"range_bits": 7}, "values within"),
    ],
)
def test_hinted_circuit_of_other_numbers_is_refused(values: Json, what: str) -> None:
    check_arguments(hinted())
    refused("plan-arguments", lambda: check_arguments(hinted(**values)), match=what)


def test_hinted_circuit_whose_values_overlap_when_packed_is_refused() -> None:
    """Values of 9,207, packed where 8,191 are held apart."""
    narrow = CommitmentArguments(decomp_base=64, decomp_legs=2, max_slots=64, salts_apart=True)
    plan = paper_plan(narrow, hinted=True)
    refused("plan-arguments", lambda: check_arguments(plan), match="8191, as packing is")
    fewer = edited(plan, lambda d: [c["arguments"].update(range_bits=4) for c in d["chunks"]])
    check_arguments(fewer)


def test_salts_apart_without_salts_are_refused() -> None:
    plan = paper_plan(CommitmentArguments(max_slots=32, salted=False))
    check_arguments(plan)
    wrong = edited(plan, lambda d: d["commitment"].update(salts_apart=True))
    refused("plan-arguments", lambda: check_arguments(wrong), match="salts")


def test_plan_for_another_ezkl_is_refused() -> None:
    wrong = edited(paper_plan(), lambda d: d.update(ezkl_version="23.0.4"))
    refused("ezkl-version", lambda: check_arguments(wrong))


# Pins.


def pinned(edit: Callable[[Json], object]) -> SealedPlan:
    document = paper_run().sealed.model_dump(mode="json")
    edit(document)
    return SealedPlan.model_validate_json(json.dumps(document))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["verifying_keys"].pop(),
        lambda d: d["verifying_keys"].reverse(),
        lambda d: d["verifying_keys"].append(d["verifying_keys"][0]),
        lambda d: d["verifying_keys"][0].update(chunk="chunk-001"),
        lambda d: d["srs"].pop(),
        lambda d: d["srs"].append(d["srs"][0]),
        lambda d: d["srs"].append({**d["srs"][0], "logrows": LOGROWS + 1}),
        lambda d: d["srs"][0].update(logrows=LOGROWS + 1),
    ],
)
def test_key_or_srs_too_many_too_few_or_out_of_place_is_refused(
    edit: Callable[[Json], object],
) -> None:
    check_pins(paper_run().sealed)
    refused("plan-pins", lambda: check_pins(pinned(edit)))


def test_srs_called_the_ceremonys_is_refused_if_its_digest_is_not() -> None:
    wrong = pinned(lambda d: d["srs"][0].update(trust="ceremony"))
    refused("srs-trust", lambda: check_pins(wrong))


# The trust root.


def test_trust_root_is_one_of_two() -> None:
    with pytest.raises(ConfigError, match="exactly one trust root"):
        TrustRoot()
    for wrong in ("0" * 63, "0" * 65, "A" * 64, ""):
        with pytest.raises(ConfigError, match="no plan digest"):
            TrustRoot(plan_digest=wrong)


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "mlp.onnx"
    onnx.save(zoo.MODELS["mlp"](), path)
    return path


def test_both_trust_roots_at_once_are_refused(mlp: Path) -> None:
    with pytest.raises(ConfigError, match="exactly one trust root"):
        TrustRoot(model=load_model(mlp), plan_digest="0" * 64)


def test_plan_of_another_model_is_not_the_trusted_ones(mlp: Path) -> None:
    trust = TrustRoot(model=load_model(mlp))
    sealed = paper_run().sealed
    refused("model-digest", lambda: check_named(trust, sealed, sealed.digest()))
    own = pinned(lambda d: d["plan"].update(model_sha256=sha256_hex(mlp.read_bytes())))
    check_named(trust, own, own.digest())


def test_rebuilt_plan_is_compared_with_the_plan(mlp: Path) -> None:
    """Every digest and count that no argument is; keys are not made for a plan that differs."""
    model = load_model(mlp)
    plan = make_plan(model, PlanOptions(scale=7, circuits="hinted")).plan
    graph = check_structure(check_extent(model, plan), plan)
    for edit in (
        lambda d: d["chunks"][0].update(onnx_sha256=digest_of("another")),
        lambda d: d["chunks"][-1].update(settings_sha256=digest_of("another")),
        lambda d: d["chunks"][0].update(num_rows=1),
        lambda d: d.update(normalised_sha256=digest_of("another")),
        lambda d: d["boundaries"][-1].update(scale=8),
    ):
        document = plan.model_dump(mode="json")
        edit(document)
        sealed = SealedPlan.model_validate_json(
            json.dumps(
                {
                    "format": "zkml_ray/sealed-plan/1",
                    "plan": document,
                    "srs": [],
                    "verifying_keys": [],
                }
            )
        )
        with pytest.raises(TrustRootError) as caught:
            check_rebuilt(model, graph, sealed, {})
        assert caught.value.code == "model-circuits"

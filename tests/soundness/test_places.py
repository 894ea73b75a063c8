"""Rows that are looked up outside of circuits: a changed token, row, table or order is refused.

The attacker has a run of his own and re-hashes whatever he changes; trust roots are the honest
plan's digest and the model.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.soundness.attacker import Attacker
from tests.soundness.here import prove_here
from zkml_ray import names
from zkml_ray.api import Run
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.errors import ConfigError, InputError, VerificationError
from zkml_ray.run.coordinator import RunOutcome
from zkml_ray.stages.plan import PlanOptions
from zkml_ray.verifying.trust import TrustRoot

OPTIONS = PlanOptions(scale=8)
TOKENS = np.array([[5, 0, 5, 299]])


def embedding(seed: int = 0) -> onnx.ModelProto:
    """300 rows of 4 numbers; two tables are read at the same places, one with two equal rows."""
    draw = np.random.default_rng(seed)
    first, second = draw.normal(size=(300, 4)), draw.normal(size=(300, 4))
    nodes = [
        helper.make_node("Gather", ["first", "tokens"], ["a"], "n_a"),
        helper.make_node("Gather", ["second", "tokens"], ["b"], "n_b"),
        helper.make_node("Add", ["a", "b"], ["c"], "n_c"),
        helper.make_node("MatMul", ["c", "w"], ["y"], "n_y"),
    ]
    weights = {"first": first, "second": second, "w": draw.normal(size=(4, 2))}
    graph = helper.make_graph(
        nodes,
        "embedding",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 2])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("embedding") / "embedding.onnx"
    onnx.save(embedding(), found)
    return found


@pytest.fixture(scope="module")
def proved(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Attacker:
    store = tmp_path_factory.mktemp("store")
    outcome = prove_here(path, store=store, run_id="r", inputs={"tokens": TOKENS}, options=OPTIONS)
    assert outcome.verdict.revealed["tokens"] == (5, 0, 5, 299)
    error = np.abs(outcome.outputs["y"] - outcome.float_outputs["y"]).max()
    assert error < 0.05
    return _attacker(store, outcome)


def _attacker(store: Path, outcome: RunOutcome) -> Attacker:
    return Attacker(
        Run(
            project="default",
            run_id="r",
            store=f"file://{store}",
            manifest=outcome.manifest,
            plan=outcome.plan,
            verdict=outcome.verdict,
            outputs=outcome.outputs,
            float_outputs=outcome.float_outputs,
            comparison=outcome.comparison,
            verified=True,
            plan_digest=outcome.manifest.plan_sha256,
        )
    )


@pytest.fixture
def attacker(proved: Attacker) -> Attacker:
    proved.reset()
    return proved


@pytest.fixture(scope="module")
def model(path: Path) -> LoadedModel:
    return load_model(path)


def refused(attacker: Attacker, code: str, model: LoadedModel) -> str:
    messages = []
    for trust in (None, TrustRoot(model=model)):
        with pytest.raises(VerificationError) as caught:
            attacker.verify(trust)
        assert caught.value.code == code
        messages.append(caught.value.message)
    return messages[0]


def places(attacker: Attacker) -> list[int]:
    found: list[int] = attacker.manifest["statement"]["places"][0]["places"]
    return found


def revealed(attacker: Attacker, boundary: str) -> dict[str, Any]:
    entries = attacker.manifest["statement"]["revealed"]
    return next(entry for entry in entries if entry["boundary"] == boundary)


def test_honest_run_verifies_with_either_trust_root(attacker: Attacker, model: LoadedModel) -> None:
    for trust in (None, TrustRoot(model=model)):
        verdict = attacker.verify(trust)
        assert verdict.revealed["tokens"] == (5, 0, 5, 299)
        assert "maps tokens (revealed) to y" in verdict.statement


@pytest.mark.parametrize("changed", [6, 0, 298])
def test_a_changed_token_is_refused(attacker: Attacker, model: LoadedModel, changed: int) -> None:
    places(attacker)[2] = changed
    assert "element 2 has another row" in refused(attacker, "statement-places", model)


def test_swapped_positions_are_refused(attacker: Attacker, model: LoadedModel) -> None:
    stated = places(attacker)
    stated[0], stated[1] = stated[1], stated[0]
    assert "element 0" in refused(attacker, "statement-places", model)


@pytest.mark.parametrize("token", [300, 1 << 20])
def test_a_token_that_is_no_row_is_refused(
    attacker: Attacker, model: LoadedModel, token: int
) -> None:
    places(attacker)[3] = token
    assert "no row of its table" in refused(attacker, "statement-places", model)


def test_a_token_too_many_or_too_few_is_refused(attacker: Attacker, model: LoadedModel) -> None:
    places(attacker).append(5)
    refused(attacker, "statement-places", model)
    attacker.reset()
    places(attacker).pop()
    refused(attacker, "statement-places", model)


@pytest.fixture(scope="module")
def consecutive(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Attacker:
    """A run of its own, of four rows that follow each other."""
    store = tmp_path_factory.mktemp("consecutive")
    tokens = np.array([[8, 9, 10, 11]])
    outcome = prove_here(path, store=store, run_id="r", inputs={"tokens": tokens}, options=OPTIONS)
    return _attacker(store, outcome)


@pytest.mark.parametrize("stated", [[4, 5], [2], list(range(16, 24)), list(range(32, 48))])
def test_rows_of_another_width_are_refused(
    consecutive: Attacker, model: LoadedModel, stated: list[int]
) -> None:
    """Rows 8 to 11 of four numbers are rows 4 and 5 of eight numbers, and row 2 of sixteen."""
    consecutive.reset()
    consecutive.manifest["statement"]["places"][0]["places"] = stated
    message = refused(consecutive, "statement-places", model)
    assert f"has {len(stated)} places of tokens" in message
    assert "4 were expected" in message


def test_a_row_of_no_table_is_refused(attacker: Attacker, model: LoadedModel) -> None:
    """Changed revealed values do not open the commitment, whatever tokens are stated."""
    revealed(attacker, "a")["values"][0] += 1
    refused(attacker, "statement-values", model)


def test_tokens_that_are_not_stated_are_refused(attacker: Attacker, model: LoadedModel) -> None:
    del attacker.manifest["statement"]["places"]
    assert "at which places" in refused(attacker, "statement-places", model)


@pytest.mark.parametrize("boundary", ["a", "b"])
def test_rows_that_are_hidden_are_refused(
    attacker: Attacker, model: LoadedModel, boundary: str
) -> None:
    """Else any numbers could stand for rows."""
    statement = attacker.manifest["statement"]
    statement["revealed"] = [e for e in statement["revealed"] if e["boundary"] != boundary]
    assert "not revealed" in refused(attacker, "statement-places", model)


def test_another_table_is_refused(attacker: Attacker, model: LoadedModel) -> None:
    """With row 6 where row 5 was, token 6 would be shown for token 5."""
    data = bytearray(attacker.read(names.table(0)))
    data[5 * 16 : 6 * 16], data[6 * 16 : 7 * 16] = data[6 * 16 : 7 * 16], data[5 * 16 : 6 * 16]
    attacker.replace(names.table(0), bytes(data))
    refused(attacker, "artifact-pin", model)


def test_another_table_in_a_plan_of_ones_own_is_refused(
    attacker: Attacker, model: LoadedModel
) -> None:
    table = bytearray(attacker.read(names.table(0)))
    table[:16] = struct.pack("<4i", 1, 2, 3, 4)
    sealed = json.loads(attacker.read(names.SEALED_PLAN))
    attacker.replace(names.table(0), bytes(table))
    sealed["plan"]["lookups"][0]["table_sha256"] = sha256_hex(bytes(table))
    attacker.replace_plan(sealed)
    with pytest.raises(VerificationError) as caught:
        attacker.verify(None)
    assert caught.value.code == "plan-digest"
    with pytest.raises(VerificationError) as caught:
        attacker.verify(TrustRoot(model=model))
    assert caught.value.code == "model-circuits"


@pytest.mark.parametrize("field", ["input", "boundary", "rows"])
def test_another_lookup_in_a_plan_of_ones_own_is_refused(
    attacker: Attacker, model: LoadedModel, field: str
) -> None:
    sealed = json.loads(attacker.read(names.SEALED_PLAN))
    lookup = sealed["plan"]["lookups"][0]
    lookup[field] = {"input": "words", "boundary": "y", "rows": 299}[field]
    attacker.replace_plan(sealed)
    with pytest.raises(VerificationError) as caught:
        attacker.verify(TrustRoot(model=model))
    assert caught.value.code in {"model-circuits", "plan-topology"}


def test_a_plan_that_forgets_its_lookups_is_refused(attacker: Attacker, model: LoadedModel) -> None:
    """The rows would be any numbers."""
    sealed = json.loads(attacker.read(names.SEALED_PLAN))
    del sealed["plan"]["lookups"]
    attacker.replace_plan(sealed)
    del attacker.manifest["statement"]["places"]
    with pytest.raises(VerificationError) as caught:
        attacker.verify(TrustRoot(model=model))
    assert caught.value.code in {"model-circuits", "plan-extent"}


def test_input_of_places_is_called_like_no_tensor_of_the_circuits(
    attacker: Attacker, model: LoadedModel
) -> None:
    """Else the verdict would show places where an output's values stood."""
    sealed = json.loads(attacker.read(names.SEALED_PLAN))
    for lookup in sealed["plan"]["lookups"]:
        lookup["input"] = sealed["plan"]["model_outputs"][0]
    attacker.replace_plan(sealed)
    attacker.manifest["statement"]["places"][0]["input"] = sealed["plan"]["model_outputs"][0]
    with pytest.raises(VerificationError) as caught:
        attacker.verify(TrustRoot(model=model))
    assert caught.value.code == "plan-topology"


def test_hidden_tokens_ask_for_another_plan(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tokens hidden"):
        prove_here(
            path,
            store=tmp_path,
            run_id="r",
            inputs={"tokens": TOKENS},
            options=OPTIONS,
            private_input=True,
        )


@pytest.mark.parametrize("token", [-1, 300, 1.5])
def test_a_prover_learns_which_token_is_no_row(path: Path, tmp_path: Path, token: float) -> None:
    tokens = TOKENS.astype(np.float64)
    tokens[0, 1] = token
    with pytest.raises(InputError, match=r"input tokens: element 1 .* 0 to 299"):
        prove_here(path, store=tmp_path, run_id="r", inputs={"tokens": tokens}, options=OPTIONS)

"""Settings of hinted circuits are computed; what ezkl would count of the same circuits agrees."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

from tests.unit.chunking.hinted_cases import CASES
from tests.unit.chunking.hinted_circuit import hinted_chunk, saved
from tests.unit.chunking.test_hinted_functions import CASES as FUNCTIONS
from zkml_ray.chunking.hinted import settle
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.circuits import backend
from zkml_ray.circuits.hinted_settings import SPARE_CONSTANTS
from zkml_ray.errors import StageError

NUMBERS = Arithmetic(scale=6, logrows=9, range_bits=5)
COUNTED_OTHERWISE = ("num_rows", "total_assignments", "required_range_checks", "einsum_params")
"""ezkl counts a decomposition that the circuit does not have, and equations for an argument that is
switched off."""

SOME = sorted(CASES)[::6]


def settings_of(
    case: str, folder: Path, *, salted: bool, columns: int, challenge: bool = False
) -> tuple[dict[str, object], dict[str, object]]:
    """What is computed and what ezkl says, of one circuit."""
    every = {**CASES, **FUNCTIONS}
    chunk = hinted_chunk(
        every[case].proto(), NUMBERS, salted=salted, columns=columns, challenge=challenge
    )
    path, arguments = saved(chunk, folder), chunk.arguments()
    computed = json.loads(backend.derive_settings(path, arguments).data)
    asked = json.loads(backend.settings_for(path, backend.run_args(arguments)).data)
    return computed, asked


@pytest.mark.parametrize("case", [*SOME, *sorted(FUNCTIONS)[::2]])
@pytest.mark.parametrize("challenge", [False, True])
def test_computed_settings_are_what_ezkl_says(
    case: str, challenge: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "is_cheaper", lambda *_: True)
    computed, asked = settings_of(
        case,
        tmp_path,
        salted=len(case) % 2 == 0,
        columns=1 + len(case) % 7,
        challenge=challenge,
    )
    constants, counted = computed.pop("total_const_size"), asked.pop("total_const_size")
    assert isinstance(constants, int) and isinstance(counted, int)
    assert 1 <= constants - counted <= 2 * SPARE_CONSTANTS
    for name in COUNTED_OTHERWISE:
        del computed[name], asked[name]
    assert computed == asked


def test_settings_of_a_circuit_without_a_recipe_are_refused_by_name(tmp_path: Path) -> None:
    chunk = hinted_chunk(CASES[SOME[0]].proto(), NUMBERS)
    path, model = tmp_path / "chunk-004.onnx", onnx.load_from_string(chunk.data)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(StageError, match="chunk-004: its model is not a hinted chunk") as caught:
        backend.derive_settings(path, chunk.arguments())
    assert caught.value.chunk_id == "chunk-004"


@pytest.mark.parametrize("operator", ["Sigmoid", "Erf"])
def test_settings_of_a_circuit_with_another_table_are_refused(
    operator: str, tmp_path: Path
) -> None:
    chunk = hinted_chunk(CASES[SOME[0]].proto(), NUMBERS)
    path, model = tmp_path / "chunk-004.onnx", onnx.load_from_string(chunk.data)
    model.graph.node.append(helper.make_node(operator, ["zkml_ray/advice"], ["more"]))
    onnx.save(model, path)
    with pytest.raises(StageError, match=rf"one table, but this has .*{operator}"):
        backend.derive_settings(path, chunk.arguments())

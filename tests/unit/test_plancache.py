"""Kept plans: what comes back is what was made, and for nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zkml_ray.chunking.load import LoadedModel, load_model
from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.cost.profiles import load_profile
from zkml_ray.errors import ChunkingError
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stages.plancache import kept_plan

OPTIONS = PlanOptions(scale=7, circuits="hinted", passes=())


@pytest.fixture
def model(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "cache"))
    return load_model(models / "mlp.onnx")


def never() -> DerivedCircuits:
    raise ChunkingError("made again")


def kept(model: LoadedModel, options: PlanOptions) -> DerivedCircuits:
    return kept_plan(model.data, options.choices(), load_profile(), never)


def test_kept_plan_is_the_one_that_was_made_notices_too(model: LoadedModel) -> None:
    made = plan(model, OPTIONS)
    assert made.notices
    assert kept(model, OPTIONS) == made


@pytest.mark.parametrize("changed", [{"scale": 8}, {"workers": 3}, {"range_bits": 4}])
def test_other_choices_find_nothing(model: LoadedModel, changed: dict[str, int]) -> None:
    plan(model, OPTIONS)
    with pytest.raises(ChunkingError, match="made again"):
        kept(model, replace(OPTIONS, **changed))


def test_kept_plan_that_was_changed_is_made_again(model: LoadedModel, tmp_path: Path) -> None:
    plan(model, OPTIONS)
    (path,) = (tmp_path / "cache").glob("plans/*/plan.json")
    path.write_bytes(path.read_bytes().replace(b'"input_scale":7', b'"input_scale":8'))
    with pytest.raises(ChunkingError, match="made again"):
        kept(model, OPTIONS)

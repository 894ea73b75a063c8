"""An input that stays hidden is proved by circuits that hide it, or by native ones on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soundness.here import prove_here
from zkml_ray import PlanOptions, verify
from zkml_ray.api import advance, prepare
from zkml_ray.errors import ConfigError
from zkml_ray.verifying.verdict import LEAKY_NATIVE

NATIVE = PlanOptions(scale=8, layers_per_chunk=1, circuits="native")
HINTED = PlanOptions(scale=8, layers_per_chunk=1, circuits="hinted")


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("mlp", {"private_input": True}),
        ("mlp", {"reveal": ["y"]}),
        ("mlp", {"reveal": []}),
        ("two_inputs", {"reveal": ["a", "gemm8"]}),
    ],
)
def test_native_circuits_are_refused_where_an_input_is_to_stay_hidden(
    models: Path, tmp_path: Path, model: str, asked: dict[str, Any]
) -> None:
    """However that was said, and of several inputs one is enough."""
    where: dict[str, Any] = {"store": tmp_path}
    file = models / f"{model}.onnx"
    prepare(file, run_id="native", options=NATIVE, **asked, **where)
    with pytest.raises(ConfigError, match="--allow-leaky-native") as refused:
        advance("native", "plan", **where)
    assert "--circuits hinted" in str(refused.value) and "\n" not in str(refused.value)
    # Both ways out that the message names.
    prepare(file, run_id="hinted", options=HINTED, **asked, **where)
    advance("hinted", "plan", **where)
    warned: list[str] = []
    prepare(file, run_id="told", options=NATIVE, allow_leaky_native=True, **asked, **where)
    advance(
        "told", "plan", listener=lambda event: warned.append(getattr(event, "message", "")), **where
    )
    assert any(LEAKY_NATIVE in message for message in warned)


def test_native_circuits_of_revealed_inputs_are_nobodys_leak(models: Path, tmp_path: Path) -> None:
    for name, asked in (("all", {}), ("named", {"reveal": ["x", "y"]})):
        prepare(models / "mlp.onnx", run_id=name, options=NATIVE, store=tmp_path, **asked)
        advance(name, "plan", store=tmp_path)


@pytest.mark.parametrize("circuits", ["hinted", "native"])
def test_verdict_of_a_hidden_input_says_whether_it_leaks(
    models: Path, tmp_path: Path, circuits: str
) -> None:
    native = circuits == "native"
    run = prove_here(
        models / "residual.onnx",
        store=tmp_path,
        run_id="hidden",
        options=NATIVE if native else HINTED,
        private_input=True,
        allow_leaky_native=native,
    )
    verdict = verify(
        "hidden", store=tmp_path, model=models / "residual.onnx", allow_insecure_srs=True
    )
    assert "x" in verdict.hidden and "x" not in verdict.revealed
    assert [entry.boundary for entry in run.manifest.statement.revealed] == ["y"]
    assert any(LEAKY_NATIVE in claim for claim in verdict.not_claimed) == native
    assert any(LEAKY_NATIVE in warning for warning in run.manifest.warnings) == native

"""Runs that only attackers need, and a tally of what was tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.layers import BY_LAYER
from zkml_ray import PlanOptions, prove_distributed
from zkml_ray.api import Run
from zkml_ray.chunking.load import LoadedModel, load_model

from .attacker import Attacker
from .tally import NOTES, TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tamper cases were tried and how many were refused."""
    if TALLY.tried:
        terminalreporter.write_line(TALLY.summary())
    for note in NOTES:
        terminalreporter.write_line(note)


@pytest.fixture(scope="session")
def honest(mlp_run: Run) -> Attacker:
    """The perceptron's run in memory. Tests that edit it use `attacker`."""
    return Attacker(mlp_run)


@pytest.fixture
def attacker(honest: Attacker) -> Attacker:
    honest.reset()
    return honest


@pytest.fixture(scope="session")
def native_attacker(ray_cluster: None, models: Path, shared_store: Path) -> Attacker:
    """The perceptron's run with native circuits; `attacker`'s are hinted."""
    return Attacker(
        prove_distributed(
            models / "mlp.onnx",
            workers=2,
            store=shared_store,
            project="shared",
            run_id="mlp-native",
            options=PlanOptions(layers_per_chunk=1, circuits="native"),
        )
    )


@pytest.fixture(scope="session")
def mlp_model(models: Path) -> LoadedModel:
    return load_model(models / "mlp.onnx")


@pytest.fixture(scope="session")
def other_run(ray_cluster: None, models: Path, shared_store: Path) -> Run:
    """The same model, another input."""
    inputs = np.full((1, 8), 0.25, dtype=np.float32)
    return prove_distributed(
        models / "mlp.onnx",
        workers=2,
        inputs=inputs,
        store=shared_store,
        project="shared",
        run_id="mlp-other",
        options=BY_LAYER,
    )


@pytest.fixture(scope="session")
def forged_run(
    ray_cluster: None, models: Path, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A run of a model of the same shapes, one weight changed by one quantum."""
    model = onnx.load(models / "mlp.onnx")
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor).copy()
    weights[0, 0] += 1 / 1024
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    path = tmp_path_factory.mktemp("forged") / "mlp.onnx"
    onnx.save(model, path)
    return prove_distributed(
        path,
        workers=2,
        store=shared_store,
        project="shared",
        run_id="mlp-forged",
        options=BY_LAYER,
    )

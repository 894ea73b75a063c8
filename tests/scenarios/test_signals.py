"""SIGTERM and ctrl-C at every stage, on a private cluster and on a joined one."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.scenarios.raylets import OPTIONS, Command, command, proving, raylets
from zkml_ray import resume
from zkml_ray.errors import ConfigError

pytestmark = pytest.mark.ray

NOISE = re.compile(
    r"\*\*\*|Check failure|Traceback|SIGTERM received|Fatal|core dumped|terminate called"
)
STAGES = {
    "plan": "plan: cutting",
    "planned": "plan: 3 chunks",
    "setup": "setup: fetching",
    "witnessed": "chunk-000: witnessed",
    "proving": "chunk-00.: proving",
    "verified": "chunk-00.: verified",
    "verify": "verify: verifying",
}
NUMBERS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def ends(run: Command, number: signal.Signals, stage: str) -> None:
    run.wait_for(STAGES[stage])
    at_s = time.monotonic()
    run.signal(number)
    code = run.end()
    assert code == NUMBERS[number], run.text
    assert time.monotonic() - at_s < 60
    assert not NOISE.search(run.text), run.text
    assert run.lines[-1].endswith("what is stored stays, the run has no manifest")


def resumed(store: Path) -> None:
    try:
        assert resume("run", store=store, workers=1, threads=1).verified
    except ConfigError as error:
        assert "was begun" in str(error)


def test_ctrl_c_ends_a_run_of_a_private_cluster_with_its_code_and_it_resumes(
    ray_cluster: None, models: Path, tmp_path: Path
) -> None:
    """SIGTERM's is in test_starting, which sees that no Ray is left behind."""
    given = ["--store", tmp_path, "--run", "run", *OPTIONS]
    with command("prove", models / "mlp.onnx", *given) as run:
        ends(run, signal.SIGINT, "witnessed")
    resumed(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", NUMBERS)
def test_signal_at_every_stage_of_a_private_cluster(
    ray_cluster: None, number: signal.Signals, stage: str, models: Path, tmp_path: Path
) -> None:
    given = ["--store", tmp_path, "--run", "run", *OPTIONS]
    with command("prove", models / "mlp.onnx", *given) as run:
        ends(run, number, stage)
    resumed(tmp_path)


@pytest.mark.slow
def test_signals_at_every_stage_of_a_joined_cluster(
    ray_cluster: None, models: Path, tmp_path: Path
) -> None:
    held = 0
    with raylets(2) as cluster:
        for number in NUMBERS:
            for stage in STAGES:
                store = tmp_path / f"{number.name}-{stage}"
                with proving(cluster, models / "mlp.onnx", store) as run:
                    ends(run, number, stage)
                resumed(store)
                held += 1
    print(f"{held} signals of {len(NUMBERS) * len(STAGES)} ended a run with their code")

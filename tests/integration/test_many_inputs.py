"""Many inputs of one model: workers stay, each input is a run of its own, one failing is alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.integration.command import run_here
from tests.layers import BY_LAYER
from zkml_ray import BatchError, Prover, resume, verify
from zkml_ray.errors import ConfigError, InputError, RunExistsError
from zkml_ray.events import Event, OfRun, RunEnded, StageStarted

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def shape(models: Path) -> tuple[int, ...]:
    import onnx

    (value,) = onnx.load(models / "mlp.onnx").graph.input
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def drawn(count: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(count).random((count, *shape), dtype=np.float32)


def test_a_prover_keeps_its_workers_between_inputs_and_each_run_verifies(
    ray_cluster: None, models: Path, shape: tuple[int, ...], tmp_path: Path
) -> None:
    events: list[Event] = []
    model, values = models / "mlp.onnx", drawn(4, shape)
    with Prover(model, 2, store=tmp_path, options=BY_LAYER, listener=events.append) as prover:
        first = prover.prove(values[0], run_id="first")
        others = prover.prove_many(list(values[1:]), run_id="more")
    runs = [first, *others]
    assert [run.run_id for run in runs] == ["first", "more-000", "more-001", "more-002"]
    assert len({run.plan_digest for run in runs}) == 1
    pids = [{chunk.pid for chunk in run.manifest.chunks} for run in runs]
    assert len(set.union(*pids)) <= 2
    for run in runs:
        assert run.verified
        assert verify(run.run_id, store=tmp_path, model=model, allow_insecure_srs=True).ok
        for name, exact in run.float_outputs.items():
            assert np.abs(run.outputs[name] - exact).max() < 0.1
    distinct = {tuple(run.outputs["y"].ravel()) for run in runs}
    assert len(distinct) == 4, "two inputs were taken for one"
    told = {event.run_id for event in events if isinstance(event, OfRun)}
    assert told == {"more-000", "more-001", "more-002"}
    assert {event.run_id for event in events if isinstance(event, RunEnded)} == told
    stages = [e.event for e in events if isinstance(e, OfRun) and e.run_id == "more-001"]
    assert "link" in {e.stage for e in stages if isinstance(e, StageStarted)}


def test_an_input_that_cannot_be_proved_ends_its_own_run_alone(
    ray_cluster: None, models: Path, shape: tuple[int, ...], tmp_path: Path
) -> None:
    values = list(drawn(3, shape))
    values[1] = values[1] + 1e6
    with (
        Prover(models / "mlp.onnx", 2, store=tmp_path, options=BY_LAYER) as prover,
        pytest.raises(BatchError, match=r"1 of 3 runs are not complete; x-001: input ") as caught,
    ):
        prover.prove_many(values, run_id="x")
    error = caught.value
    assert set(error.runs) == {0, 2}
    assert all(run.verified for run in error.runs.values())
    assert isinstance(error.errors[1], InputError)
    assert error.exit_code == InputError.exit_code
    with pytest.raises(InputError):
        resume("x-001", store=tmp_path, workers=1)
    with pytest.raises(RunExistsError):
        resume("x-000", store=tmp_path, workers=1)


def test_wrong_inputs_are_refused_by_their_place_before_any_run_is_begun(
    models: Path, shape: tuple[int, ...], tmp_path: Path
) -> None:
    prover = Prover(models / "mlp.onnx", 1, store=tmp_path / "store")
    values = list(drawn(2, shape))
    with pytest.raises(InputError, match="input 1 of 2: "):
        prover.prove_many([values[0], np.zeros((3, 3, 3), dtype=np.float32)])
    with pytest.raises(ConfigError, match="there is no input"):
        prover.prove_many([])
    with pytest.raises(InputError, match="no such file or folder"):
        prover.prove_many(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no input"):
        prover.prove_many(tmp_path / "empty")
    with pytest.raises(ConfigError, match="with Prover"):
        prover.prove(values[0])
    assert not list((tmp_path / "store").glob("projects/*/runs/*"))


def test_the_command_takes_a_folder_or_a_file_of_inputs(
    ray_cluster: None, models: Path, shape: tuple[int, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    values = drawn(3, shape)
    np.save(folder / "b.npy", values[0])
    np.save(folder / "a.npy", values[1:])
    (folder / "notes.txt").write_text("not an input")
    given = ["--store", tmp_path / "store", "--scale", "8", "--layers-per-chunk", "1"]
    found = run_here(
        "prove", models / "mlp.onnx", "--inputs", folder, "--run", "r", *given, "--json"
    )
    assert found.code == 0, found.stderr
    runs = found.json["runs"]
    assert [run["run_id"] for run in runs] == ["r-000", "r-001", "r-002"]
    assert all(run["verified"] for run in runs)
    both = run_here("prove", models / "mlp.onnx", "--inputs", folder, "--input", folder / "b.npy")
    assert both.code == 2
    assert "give one of them" in both.stderr
    digest = runs[0]["plan_digest"]
    told = run_here("prove", models / "mlp.onnx", "--inputs", folder / "b.npy", *given)
    assert told.code == 0, told.stderr
    shown = " ".join(told.stdout.split())
    assert "1 run proved, verified and stored in " in shown
    assert f"Plan digest {digest}" in shown
    assert "SRS" in shown

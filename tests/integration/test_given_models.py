"""Models as a Python program has them: files, bytes, messages, torch modules, estimators.

What needs torch is skipped where it is missing; `make test-exports` runs it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.soundness.here import prove_here
from zkml_ray import PlanOptions, verify
from zkml_ray.api import advance, prepare
from zkml_ray.chunking.given import take_model
from zkml_ray.errors import InputError, ModelFormatError, TrustRootError

SMALL = PlanOptions(scale=8, layers_per_chunk=1)
Forms = dict[str, Callable[[Path], Any]]
FORMS: Forms = {
    "path": lambda path: path,
    "text": str,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "message": onnx.load,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_is_the_same_model(models: Path, form: str) -> None:
    path = models / "mlp.onnx"
    loaded = take_model(FORMS[form](path))
    assert hashlib.sha256(loaded.data).digest() == hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.parametrize("proved", ["bytes", "message"])
def test_run_proved_of_one_form_verifies_by_every_other(
    models: Path, tmp_path: Path, proved: str
) -> None:
    path = models / "mlp.onnx"
    prove_here(FORMS[proved](path), store=tmp_path, run_id="run", options=SMALL)
    for form, given in FORMS.items():
        assert verify("run", store=tmp_path, model=given(path), allow_insecure_srs=True).ok, form
    limited = verify(
        "run", store=tmp_path, model=path.read_bytes(), allow_insecure_srs=True, max_seconds=200
    )
    assert limited.ok
    with pytest.raises(TrustRootError):
        verify("run", store=tmp_path, model=onnx.load(models / "residual.onnx"),
               allow_insecure_srs=True)  # fmt: skip


@pytest.mark.parametrize(
    "model", [None, 3, 2.5, {}, [], (1,), {"a"}, object(), np.zeros(3), lambda x: x, type]
)
def test_other_types_are_refused_by_both_functions_with_their_name(
    tmp_path: Path, model: Any
) -> None:
    with pytest.raises(InputError, match="model is ") as refused:
        prepare(model, store=tmp_path)
    name = "None" if model is None else type(model).__qualname__
    assert name in str(refused.value) and "torch.nn.Module" in str(refused.value)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    if model is not None:
        with pytest.raises(InputError, match="model is "):
            verify("run", store=tmp_path, model=model)


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x00" * 100])
def test_bytes_that_are_no_model_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelFormatError, match=r"model\.onnx") as refused:
        prepare(data, store=tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["X", "xx", "input", "arr_0", ""])
def test_one_wrong_input_name_is_refused(models: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="the model's inputs are x; missing: x, unknown: "):
        prepare(models / "mlp.onnx", {name: np.zeros((1, 8), np.float32)}, store=tmp_path)


def test_unnamed_arrays_of_an_npz_file_are_in_input_order(models: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", np.zeros((1, 8), np.float32))
    prepare(models / "mlp.onnx", tmp_path / "one.npz", store=tmp_path / "store", run_id="usual")
    np.savez(tmp_path / "wrong.npz", y=np.zeros((1, 8), np.float32))
    with pytest.raises(InputError, match="missing: x, unknown: y"):
        prepare(models / "mlp.onnx", tmp_path / "wrong.npz", store=tmp_path / "store")


def estimators() -> list[Any]:
    linear = pytest.importorskip("sklearn.linear_model")
    network = pytest.importorskip("sklearn.neural_network")
    pipeline = pytest.importorskip("sklearn.pipeline")
    scaling = pytest.importorskip("sklearn.preprocessing")
    pytest.importorskip("skl2onnx")
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(80, 4)).astype(np.float32)
    classes = (rows[:, 0] > 0).astype(int) + (rows[:, 1] > 0.5)
    return [
        (linear.LogisticRegression().fit(rows, classes), rows),
        (linear.LinearRegression().fit(rows, rows[:, 0] - rows[:, 2]), rows),
        (
            pipeline.make_pipeline(
                scaling.StandardScaler(),
                network.MLPClassifier((6,), max_iter=20, tol=1.0, random_state=0),
            ).fit(rows, classes),
            rows,
        ),
    ]


def test_estimators_say_what_scikit_learn_says(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    for estimator, rows in estimators():
        loaded = take_model(estimator)
        assert loaded.name == f"{type(estimator).__name__}.onnx"
        assert take_model(estimator).data == loaded.data, "the same bytes again"
        assert all(node.domain in ("", "ai.onnx") for node in loaded.proto.graph.node)
        session = onnxruntime.InferenceSession(loaded.data, providers=["CPUExecutionProvider"])
        is_classifier = hasattr(estimator, "predict_proba")
        wanted = (estimator.predict_proba if is_classifier else estimator.predict)(rows[:5])
        for row, expected in zip(rows[:5], wanted, strict=True):
            (got,) = session.run(None, {"X": row.reshape(1, -1)})
            assert np.allclose(got.ravel(), np.ravel(expected), atol=1e-5)


def test_estimator_is_proved_and_verifies_by_itself(tmp_path: Path) -> None:
    estimator, rows = estimators()[1]
    run = prove_here(
        estimator, store=tmp_path, run_id="run", inputs=rows[0], options=PlanOptions(scale=8)
    )
    (value,) = run.outputs.values()
    assert abs(value.ravel()[0] - estimator.predict(rows[:1])[0]) < 0.1
    assert verify("run", store=tmp_path, model=estimator, allow_insecure_srs=True).ok


def test_estimator_that_is_not_fitted_is_refused() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    pytest.importorskip("skl2onnx")
    for example in (None, np.zeros((1, 4))):
        with pytest.raises(InputError, match="LinearRegression"):
            take_model(linear.LinearRegression(), example)


def torch_module() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, 3)
    return torch, torch.nn.Sequential(*layers)


def test_torch_module_is_exported_proved_and_verifies_by_itself(tmp_path: Path) -> None:
    torch, module = torch_module()
    example = torch.rand(1, 6)
    module.train()
    run = prove_here(module, store=tmp_path, run_id="run", inputs=example, options=SMALL)
    assert module.training, "its mode is as it was"
    module.eval()
    with torch.no_grad():
        wanted = module(example).numpy()
    (got,) = run.outputs.values()
    assert np.abs(got - wanted).max() < 0.1
    verdict = verify(
        "run", store=tmp_path, model=module, example_inputs=example, allow_insecure_srs=True
    )
    assert verdict.ok
    with torch.no_grad():
        module[0].bias += 1
    with pytest.raises(TrustRootError):
        verify("run", store=tmp_path, model=module, example_inputs=example, allow_insecure_srs=True)


def test_exported_torch_module_holds_no_path_of_this_machine() -> None:
    torch, module = torch_module()
    data = take_model(module, torch.zeros(1, 6)).data
    assert data == take_model(module, np.zeros((1, 6), np.float32)).data
    for part in (str(Path(__file__).parent), str(Path(sys.prefix)), "site-packages", ".py"):
        assert part.encode() not in data


def test_torch_module_without_or_with_unfit_inputs_is_refused(tmp_path: Path) -> None:
    torch, module = torch_module()
    for example in (None, "input.npy", torch.zeros(1, 7), np.array(["a"]), [object()]):
        with pytest.raises(InputError, match=r"Sequential|example input") as refused:
            prepare(module, example, store=tmp_path)
        assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_torch_module_of_two_arguments_takes_them_in_order_and_by_name(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Sum(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, first: Any, second: Any) -> Any:
            return torch.relu(first) + 2 * second

    a, b = torch.ones(1, 3), torch.full((1, 3), 2.0)
    prepare(Sum(), [a, b], store=tmp_path, run_id="order", options=SMALL)
    prepare(Sum(), {"second": b, "first": a}, store=tmp_path, run_id="names", options=SMALL)
    for run_id in ("order", "names"):
        advance(run_id, "witness", store=tmp_path)


def test_package_shows_its_public_names_and_is_typed(repository: Path) -> None:
    code = "import zkml_ray; print(*dir(zkml_ray))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import zkml_ray

    assert done.stdout.split() == sorted(zkml_ray.__all__)
    assert (repository / "zkml_ray" / "py.typed").is_file()

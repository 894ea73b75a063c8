"""A user's mistake gives one clear line and the right exit code, and the store stays usable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from tests.integration.command import Outcome, run_here, run_process
from zkml_ray.api import Run

pytestmark = pytest.mark.ray

INPUT_VALUES = 8


@pytest.fixture(scope="module")
def store(mlp_run: Run, shared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one good run, to be used wrongly."""
    return shutil.copytree(shared_store, tmp_path_factory.mktemp("bad") / "store")


@pytest.fixture(scope="module")
def bad_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad models")
    (folder / "random.onnx").write_bytes(np.random.default_rng(0).bytes(4096))
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("this is a text about neural networks\n" * 20)
    (folder / "folder.onnx").mkdir()
    nodes = {
        "unsupported": [
            helper.make_node("Relu", ["x"], ["a"], "first"),
            helper.make_node("Bernoulli", ["a"], ["y"], "the_draw"),
        ],
        "custom": [helper.make_node("Own", ["x"], ["y"], "mine", domain="com.example")],
        "training": [helper.make_node("Dropout", ["x", "", "on"], ["y"], "the_dropout")],
        "good": [helper.make_node("Relu", ["x"], ["y"], "relu")],
    }
    for name, made in nodes.items():
        onnx.save(_model(made, ["x"]), folder / f"{name}.onnx")
    for name, number in {"nan": np.nan, "infinite": np.inf, "elsewhere": 0.5}.items():
        weighted = _model([helper.make_node("Mul", ["x", "w"], ["y"], "product")], ["x"])
        weight = numpy_helper.from_array(np.full(4, number, dtype=np.float32), "w")
        if name == "elsewhere":
            set_external_data(weight, "weights.bin")
            weight.ClearField("raw_data")
        weighted.graph.initializer.append(weight)
        (folder / f"{name}.onnx").write_bytes(weighted.SerializeToString())
    onnx.save(_model(nodes["good"], ["x"], shape=[4, "width"]), folder / "dynamic.onnx")
    onnx.save(_model(nodes["good"], ["x"], shape=[4, None]), folder / "unnamed.onnx")
    onnx.save(_model(nodes["good"], ["x"], shape=["sequence", 4]), folder / "sequence.onnx")
    data = (folder / "unsupported.onnx").read_bytes()
    (folder / "truncated.onnx").write_bytes(data[: len(data) // 2])
    return folder


def _model(nodes: list[onnx.NodeProto], inputs: list[str], shape: Any = (1, 4)) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(True), "on")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def check(found: Outcome, code: int, *words: str) -> None:
    """One error line that holds every word, the exit code, and nothing else a user must decode."""
    assert found.code == code, found.stderr
    assert len(found.errors) == 1, found.stderr
    assert found.stdout == ""
    assert "Traceback" not in found.stderr
    for word in words:
        assert word in found.errors[0], found.errors[0]


@pytest.fixture
def still_usable(store: Path, models: Path) -> Any:
    """After the test: the store lists its good run and no other, and the run verifies."""
    before = sorted(store.glob("projects/*/runs/*/manifest.json"))
    yield
    assert sorted(store.glob("projects/*/runs/*/manifest.json")) == before
    listed = run_here("runs", "--store", store, "--project", "shared", "--json")
    assert "mlp" in [row["run_id"] for row in listed.json["runs"]]
    arguments = ["--store", store, "--project", "shared", "--model", models / "mlp.onnx"]
    assert run_here("verify", "mlp", *arguments, "--allow-insecure-srs").code == 0


MODEL_CASES = {
    "missing": (2, ["no such model file", "missing.onnx"]),
    "folder": (2, ["no such model file"]),
    "random": (2, ["random.onnx", "not a valid ONNX"]),
    "empty": (2, ["empty.onnx", "not a"]),
    "text": (2, ["text.onnx", "not a valid ONNX"]),
    "truncated": (2, ["truncated.onnx", "not a valid ONNX"]),
    "unsupported": (4, ["Bernoulli", "the_draw", "Conv, ", "Gemm, ", "Relu, "]),
    "custom": (4, ["com.example.Own", "mine", "supported operators"]),
    "training": (4, ["the_dropout", "training mode"]),
    "nan": (2, ["nan.onnx", "initializer 'w'", "NaN"]),
    "infinite": (2, ["constant 'w'", "inf (4 of 4 elements)"]),
    "elsewhere": (2, ["elsewhere.onnx", "initializer 'w'", "'weights.bin'", "not beside"]),
    "dynamic": (2, ["axis 1 of input x", "--dim width=NUMBER"]),
    "unnamed": (2, ["axis 1 of input x", "--dim x:1=NUMBER"]),
    "sequence": (2, ["axis 0 of input x", "--dim sequence=NUMBER"]),
}


@pytest.mark.parametrize("command", ["prove", "plan"])
@pytest.mark.parametrize("name", MODEL_CASES)
def test_bad_model_is_refused(
    name: str, command: str, bad_models: Path, store: Path, still_usable: None
) -> None:
    code, words = MODEL_CASES[name]
    more = ["--store", store] if command == "prove" else []
    check(run_here(command, bad_models / f"{name}.onnx", *more), code, *words)


@pytest.mark.parametrize("name", ["text", "nan", "elsewhere"])
def test_bad_model_given_to_verify_is_refused(name: str, bad_models: Path, store: Path) -> None:
    arguments = ["--store", store, "--project", "shared", "--model", bad_models / f"{name}.onnx"]
    check(run_here("verify", "mlp", *arguments), 2, f"{name}.onnx")


def test_dynamic_dimension_with_a_value_can_be_planned(bad_models: Path) -> None:
    found = run_here("plan", bad_models / "dynamic.onnx", "--dim", "width=3", "--json")
    assert found.code == 0, found.stderr
    assert found.json["plan"]["boundaries"][0]["shape"] == [4, 3]
    assert found.json["plan"]["dimensions"] == [["width", 3]]


@pytest.mark.parametrize(
    "value",
    [
        "width=0",
        "width=-1",
        "width",
        "width=x",
        "=3",
        "other=3",
        "width=²",
        f"width={2**40}",
        "width=" + "9" * 5000,
    ],
)
def test_bad_value_for_a_dimension_is_refused(value: str, bad_models: Path) -> None:
    check(run_here("plan", bad_models / "dynamic.onnx", "--dim", value), 2)


def _json(document: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "input.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


def _npy(array: Any, *, pickled: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "input.npy", array, allow_pickle=pickled)
        return folder / "input.npy"

    return write


def _npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "input.npz", **arrays)
        return folder / "input.npz"

    return write


def _file(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def _with(index: int, value: float) -> list[float]:
    values = [0.5] * INPUT_VALUES
    values[index] = value
    return values


INPUT_CASES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "missing file": (lambda folder: folder / "none.json", ["no such input file", "none.json"]),
    "folder": (lambda folder: folder, ["no such input file"]),
    "too few": (_json({"input_data": [[1, 2, 3]]}), ["shape [3]", "[1, 8]"]),
    "too many": (_json({"input_data": [[0.5] * 9]}), ["shape [9]", "[1, 8]"]),
    "other shape": (_npy(np.zeros((2, 4))), ["shape [2, 4]", "[1, 8]"]),
    "two inputs": (_json({"input_data": [[0.5] * 8, [0.5] * 8]}), ["[1, 8]"]),
    "no input": (_json({"input_data": []}), ["[1, 8]"]),
    "wrong name": (_npz(x=np.zeros(8), z=np.zeros(8)), ["unknown: z"]),
    "strings": (_json({"input_data": [["a"] * 8]}), ["dtype", "numbers"]),
    "numbers as strings": (_json({"input_data": [["1"] * 8]}), ["dtype"]),
    "nulls": (_json({"input_data": [[None] * 8]}), ["dtype"]),
    "ragged": (_json({"input_data": [[[1, 2], [3]]]}), ["not one array"]),
    "NaN": (_json('{"input_data": [[0, 0, NaN, 0, 0, 0, 0, 0]]}'), ["element 2", "NaN"]),
    "infinity": (_npy(np.array(_with(5, float("inf")))), ["element 5", "infinite"]),
    "minus infinity": (_npy(np.array(_with(0, float("-inf")))), ["element 0"]),
    "beyond float32": (_json({"input_data": [_with(1, 1e300)]}), ["element 1", "float32"]),
    "huge integer": (_json('{"input_data": [[' + "9" * 400 + "]]}"), ["input x"]),
    "very many digits": (_json('{"input_data": [[' + "9" * 5000 + "]]}"), ["input.json"]),
    "deeply nested": (_json("[" * 100_000), ["input.json"]),
    "outside the quantised range": (
        _json({"input_data": [_with(3, 1e6)]}),
        ["element 3", "quantised range", "--scale"],
    ),
    "outside the circuit's range": (
        _json({"input_data": [[100.0] * 8]}),
        ["chunk-000", "+-32", "--range-bits"],
    ),
    "not JSON": (_json("{"), ["input.json", "not JSON"]),
    "not text": (_file("input.json", b"\xff\xfe\x00"), ["not JSON"]),
    "other JSON": (_json([1, 2, 3]), ["input_data"]),
    "data is no list": (_json({"input_data": "12345678"}), ["input_data"]),
    "unknown suffix": (_file("input.csv", b"1,2"), [".csv", ".npy"]),
    "no suffix": (_file("input", b"1,2"), [".json"]),
    "npy that is none": (_file("input.npy", b"1,2"), ["input.npy"]),
    "npy cut off": (_file("input.npy", b"\x93NUMPY\x01\x00"), ["input.npy"]),
    "empty npy": (_file("input.npy", b""), ["input.npy"]),
    "npz that is none": (_file("input.npz", b"PK\x03\x04 no zip"), ["input.npz"]),
    "pickled npy": (_npy(np.array([{"a": 1}] * 8), pickled=True), ["input.npy"]),
    "pickled npz": (_npz(x=np.array([None] * 8)), ["input.npz"]),
    "bare pickle": (_file("input.npy", b"\x80\x04N."), ["input.npy"]),
    "complex": (_npy(np.zeros(8, dtype=complex)), ["dtype complex128"]),
    "structured": (_npy(np.zeros(8, dtype=[("a", "f4")])), ["dtype"]),
}


@pytest.mark.parametrize("name", INPUT_CASES)
def test_bad_input_data_is_refused(
    name: str, models: Path, store: Path, tmp_path: Path, still_usable: None
) -> None:
    write, words = INPUT_CASES[name]
    found = run_here("prove", models / "mlp.onnx", "--input", write(tmp_path), "--store", store)
    check(found, 2, *words)


OPTION_CASES: dict[str, tuple[list[str], list[str]]] = {
    "no workers": (["--workers", "0"], ["workers", "at least 1"]),
    "fewer workers": (["-w", "-3"], ["workers", "-3"]),
    "no threads": (["--threads", "0"], ["threads", "at least 1"]),
    "fewer threads": (["--threads", "-1"], ["threads"]),
    "scale 0": (["--scale", "0"], ["scale"]),
    "scale 60": (["--scale", "60"], ["scale", "60"]),
    "scale text": (["--scale", "ten"], ["--scale"]),
    "no layers": (["--layers-per-chunk", "0"], ["layers per chunk"]),
    "dimension unknown": (["--dim", "batch=1"], ["batch"]),
    "run above": (["--run", "../x"], ["../x"]),
    "run below": (["--run", "a/b"], ["a/b"]),
    "run hidden": (["--run", ".hidden"], [".hidden"]),
    "run empty": (["--run", ""], ["run name"]),
    "run newline": (["--run", "a\nb"], ["run name"]),
    "run long": (["--run", "x" * 101], ["1 to 100"]),
    "project above": (["--project", "../x"], ["project", "../x"]),
    "project absolute": (["--project", "/x"], ["project"]),
    "checkpoints": (["--keep-checkpoints", "maybe"], ["yes or no"]),
    "reveal unknown": (["--reveal", "nothing"], ["nothing", "boundaries are x, ", "y"]),
    "run taken": (["--project", "shared", "--run", "mlp"], ["mlp", "exists"]),
    "negative seed": (["--seed", "-1"], ["seed"]),
    "seed that JSON cannot hold": (["--seed", str(2**60)], ["seed"]),
}


@pytest.mark.parametrize("name", OPTION_CASES)
def test_bad_option_of_prove_is_refused(
    name: str, models: Path, store: Path, still_usable: None
) -> None:
    arguments, words = OPTION_CASES[name]
    check(run_here("prove", models / "mlp.onnx", "--store", store, *arguments), 2, *words)


VERIFY_CASES: dict[str, tuple[list[str], list[str]]] = {
    "no trust root": (["mlp"], ["--model", "--plan-digest"]),
    "both trust roots": (
        ["mlp", "--model", "MODEL", "--plan-digest", "0" * 64],
        ["exactly one trust root"],
    ),
    "unknown run": (["none", "--model", "MODEL"], ["no run none", "zkml-ray runs"]),
    "unknown project": (["mlp", "--project", "other", "--model", "MODEL"], ["other"]),
    "run above": (["../mlp", "--model", "MODEL"], ["../mlp"]),
    "missing model": (["mlp", "--model", "none.onnx"], ["no such model file"]),
    "unknown scheme": (["mlp", "--model", "MODEL", "--store", "gopher://x"], ["gopher"]),
}


@pytest.mark.parametrize("name", VERIFY_CASES)
def test_bad_arguments_of_verify_are_refused(
    name: str, models: Path, store: Path, still_usable: None
) -> None:
    given, words = VERIFY_CASES[name]
    arguments = [str(models / "mlp.onnx") if word == "MODEL" else word for word in given]
    found = run_here("verify", "--store", store, "--project", "shared", *arguments)
    check(found, 2, *words)


def test_store_below_a_file_is_one_line_and_exits_3(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = run_here("prove", models / "mlp.onnx", "--store", tmp_path / "file" / "store")
    check(found, 3, "cannot write", "--store")
    assert (tmp_path / "file").read_text() == "in the way"


def test_store_of_an_unknown_scheme_is_refused(models: Path) -> None:
    for command in (["prove", models / "mlp.onnx"], ["runs"]):
        check(run_here(*command, "--store", "gopher://x/y"), 2, "gopher")


def test_listing_a_project_above_the_store_is_refused(store: Path) -> None:
    check(run_here("runs", "--store", store, "--project", "../x"), 2, "../x")


def test_listing_with_a_damaged_manifest_is_one_line(store: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(store, tmp_path / "store")
    manifest = damaged / "projects/shared/runs/mlp/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    check(run_here("runs", "--store", damaged, "--project", "shared"), 2, "mlp")


def test_srs_folder_without_a_file_of_the_size_is_refused(
    models: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKML_RAY_SRS_DIR", str(tmp_path))
    check(run_here("prove", models / "mlp.onnx", "--store", store), 2, "kzg12.srs")


def test_demo_of_an_unknown_digit_is_refused() -> None:
    check(run_here("demo", "--digit", "eleven"), 2, "eleven")


def test_bad_model_in_a_fresh_process_is_one_line_and_nothing_else(bad_models: Path) -> None:
    found = run_process("prove", bad_models / "random.onnx", "--json")
    check(found, 2, "not a valid ONNX")
    assert len(found.stderr.splitlines()) == 1


def test_input_out_of_range_in_a_fresh_process_is_one_line(
    models: Path, store: Path, tmp_path: Path
) -> None:
    """ezkl's own words about an overflow inside a native circuit are not let through."""
    np.save(tmp_path / "input.npy", np.full(INPUT_VALUES, 250_000.0))
    arguments = ["--input", tmp_path / "input.npy", "--store", store, "--circuits", "native"]
    check(run_process("prove", models / "mlp.onnx", *arguments, "--json"), 2, "chunk-000")

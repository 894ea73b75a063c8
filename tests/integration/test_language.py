"""Language models with tokens of int64: planned, quantised, proved beside onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.soundness.here import prove_here
from tests.zoo.language import Size, bert, gpt
from zkml_ray import Prover
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits.derive import normalised_graph
from zkml_ray.errors import UnsupportedOperatorError
from zkml_ray.report.accuracy import Accuracy
from zkml_ray.report.facts import gather
from zkml_ray.report.page import render
from zkml_ray.scratch import scratch_folder
from zkml_ray.stages.accuracy import _compiled, measure_accuracy, quantised_boundaries
from zkml_ray.stages.inputs import read_inputs
from zkml_ray.stages.plan import PlanOptions, plan
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import RunLayout

SCALE = 8


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def error_of(path: Path, options: PlanOptions, inputs: dict[str, np.ndarray]) -> float:
    """The largest error of a plan's quantised model."""
    model = load_model(path)
    circuits = plan(model, options)
    graph = normalised_graph(options.taken_by(model), dict(circuits.plan.dimensions))
    arrays = read_inputs(graph, inputs).arrays
    return measure_accuracy(model, circuits, [arrays]).max_abs_error


def tokens_of(size: Size, seed: int = 0) -> np.ndarray:
    made: np.ndarray = np.random.default_rng(seed).integers(size.words, size=(1, size.tokens))
    return made


def test_gpt_of_hinted_circuits_is_proved_beside_onnxruntime(tmp_path: Path) -> None:
    size = Size(tokens=4, width=8, words=50)
    path = saved(tmp_path, gpt(size))
    outcome = prove_here(
        path,
        store=tmp_path / "store",
        run_id="gpt",
        inputs={"tokens": tokens_of(size)},
        options=PlanOptions(scale=SCALE),
    )
    assert {chunk.arguments.kind for chunk in outcome.plan.chunks} == {"hinted"}
    (name,) = outcome.plan.model_outputs
    error = np.abs(outcome.outputs[name] - outcome.float_outputs[name]).max()
    assert error < 0.05
    assert outcome.verdict.revealed["tokens"] == tuple(tokens_of(size).ravel())
    page = render(
        gather(open_store(str(tmp_path / "store")), RunLayout("default", "gpt")),
        Accuracy(note=""),
    )
    said = ", ".join(map(str, tokens_of(size).ravel()))
    assert "Input <code>tokens</code>" in page
    assert f"Rows of a table of the model were looked up at {said}." in page


@pytest.mark.slow
def test_gpt_of_two_layers_is_proved_beside_onnxruntime(tmp_path: Path) -> None:
    size = Size(tokens=8, width=32, heads=4, layers=2, words=65)
    outcome = prove_here(
        saved(tmp_path, gpt(size)),
        store=tmp_path / "store",
        run_id="gpt",
        inputs={"tokens": tokens_of(size)},
        options=PlanOptions(scale=10),
    )
    (name,) = outcome.plan.model_outputs
    assert np.abs(outcome.outputs[name] - outcome.float_outputs[name]).max() < 0.05


def with_mask(model: onnx.ModelProto, mask: np.ndarray) -> onnx.ModelProto:
    """A BERT-like model whose attention mask is a constant."""
    kept = [value for value in model.graph.input if value.name != "attention_mask"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.append(numpy_helper.from_array(mask, "attention_mask"))
    return model


def test_bert_with_a_padding_mask_is_near_onnxruntime(tmp_path: Path) -> None:
    size = Size(tokens=6, width=8, words=300)
    mask = np.array([[1, 1, 1, 1, 0, 0]])
    path = saved(tmp_path, with_mask(bert(size), mask))
    inputs = {"input_ids": tokens_of(size), "token_type_ids": np.array([[0, 0, 1, 1, 1, 0]])}
    assert error_of(path, PlanOptions(scale=SCALE), inputs) < 0.05


@pytest.mark.slow
def test_bert_with_a_padding_mask_is_proved_beside_onnxruntime(tmp_path: Path) -> None:
    size = Size(tokens=4, width=8, words=300)
    path = saved(tmp_path, with_mask(bert(size), np.array([[1, 1, 1, 0]])))
    inputs = {"input_ids": tokens_of(size), "token_type_ids": np.array([[0, 0, 1, 1]])}
    outcome = prove_here(
        path,
        store=tmp_path / "store",
        run_id="bert",
        inputs=inputs,
        options=PlanOptions(scale=SCALE),
    )
    (name,) = outcome.plan.model_outputs
    assert np.abs(outcome.outputs[name] - outcome.float_outputs[name]).max() < 0.05
    assert {"input_ids", "token_type_ids"} <= outcome.verdict.revealed.keys()


def test_a_mask_that_is_an_input_is_refused_by_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path, bert(Size(tokens=4, width=8, words=300)))
    with pytest.raises(UnsupportedOperatorError, match="put attention_mask into the model"):
        plan(load_model(path), PlanOptions(scale=SCALE))


@pytest.mark.parametrize("seed", range(3))
def test_later_tokens_change_nothing_before_them(tmp_path: Path, seed: int) -> None:
    """The mask is causal in the circuits as well: with quantised numbers, exactly."""
    size = Size(tokens=6, width=8, words=50)
    path = saved(tmp_path, gpt(size))
    model = load_model(path)
    options = PlanOptions(scale=SCALE)
    circuits = plan(model, options)
    graph = normalised_graph(options.taken_by(model), dict(circuits.plan.dimensions))
    first = tokens_of(size, seed)
    second = first.copy()
    second[0, 4:] = (second[0, 4:] + 7) % size.words
    (name,) = circuits.plan.model_outputs
    with scratch_folder() as folder:
        compiled = _compiled(circuits, folder)
        found = []
        for tokens in (first, second):
            arrays = read_inputs(graph, {"tokens": tokens}).arrays
            made = quantised_boundaries(circuits.plan, compiled.__getitem__, arrays)[name]
            found.append(np.array(made).reshape(size.tokens, size.words))
    np.testing.assert_array_equal(found[0][:4], found[1][:4])
    assert (found[0][4:] != found[1][4:]).any()


def test_a_vocabulary_of_any_size_adds_nothing_to_the_circuits(tmp_path: Path) -> None:
    plans = []
    for words in (20, 2000):
        size = Size(tokens=4, width=8, words=20)
        made = gpt(size)
        for tensor in made.graph.initializer:
            if list(tensor.dims) == [20, 8]:
                table = np.random.default_rng(0).normal(size=(words, 8)).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(table, tensor.name))
        folder = tmp_path / str(words)
        folder.mkdir()
        plans.append(plan(load_model(saved(folder, made)), PlanOptions(scale=SCALE)).plan)
    small, large = plans
    assert [chunk.num_rows for chunk in small.chunks] == [chunk.num_rows for chunk in large.chunks]
    assert [lookup.rows for lookup in large.lookups] == [2000]


def test_hidden_tokens_are_looked_up_in_circuits(tmp_path: Path) -> None:
    size = Size(tokens=4, width=8, words=20)
    path = saved(tmp_path, gpt(size))
    options = PlanOptions(scale=SCALE, tokens="hidden")
    circuits = plan(load_model(path), options)
    assert not circuits.plan.lookups
    assert {chunk.arguments.kind for chunk in circuits.plan.chunks} == {"hinted"}
    assert circuits.plan.model_inputs == ("tokens",)
    assert error_of(path, options, {"tokens": tokens_of(size)}) < 0.06


def test_files_of_many_tokens_are_the_inputs_that_are_given_one_by_one(tmp_path: Path) -> None:
    size = Size(tokens=4, width=8, words=50)
    path = saved(tmp_path, gpt(size))
    several = np.stack([tokens_of(size, seed) for seed in range(3)])
    np.savez(tmp_path / "many.npz", tokens=several)
    prover = Prover(path, 1, store=tmp_path / "store", options=PlanOptions(scale=SCALE))
    from_file = prover._checked(tmp_path / "many.npz")
    one_by_one = prover._checked(list(several))
    assert len(from_file) == 3
    for one, other in zip(from_file, one_by_one, strict=True):
        assert one.arrays.keys() == other.arrays.keys() != {"tokens"}
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(values, other.arrays[name])

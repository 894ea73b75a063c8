"""The list of operators is what the code decides; the document holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests.integration.command import run_here
from zkml_ray.chunking.coverage import operator_rows
from zkml_ray.chunking.hinted.operators import OPERATORS
from zkml_ray.chunking.normalize import normalise
from zkml_ray.chunking.operators import SUPPORTED
from zkml_ray.command_line.tables import operators_markdown
from zkml_ray.errors import UnsupportedOperatorError

ROWS = {row.name: row for row in operator_rows()}


def test_document_is_what_the_command_prints(repository: Path) -> None:
    stored = (repository / "docs" / "operators.md").read_text()
    assert stored == "\n".join(operators_markdown(operator_rows())) + "\n", (
        "make it anew: zkml-ray operators --markdown > docs/operators.md"
    )


def test_every_operator_of_circuits_is_listed() -> None:
    assert set(OPERATORS) | set(SUPPORTED) <= ROWS.keys()
    assert ROWS["Conv"].fate == "hinted and native"
    assert ROWS["Sin"].fate == "native"
    assert ROWS["LSTM"].fate == "rewritten"
    assert ROWS["NonZero"].fate == "on constants"
    assert ROWS["ai.onnx.ml.TreeEnsembleClassifier"].fate == "rewritten"


WITH_GRAPHS = {"Loop", "SequenceMap"}
"""A node of these without a graph is no node."""


@pytest.mark.parametrize(
    "name", [n for n, row in ROWS.items() if row.fate == "refused" and n not in WITH_GRAPHS]
)
def test_refused_operator_is_refused_by_name(name: str) -> None:
    domain, _, operator = name.rpartition(".")
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], "the_node", domain=domain)],
        "refused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    opset = [helper.make_opsetid("", 23), helper.make_opsetid("ai.onnx.ml", 3)]
    with pytest.raises(UnsupportedOperatorError, match=rf"{name} of node 'the_node'"):
        normalise(helper.make_model(graph, opset_imports=opset, ir_version=10), {})


def test_command_lists_one_all_and_no_such_operator() -> None:
    one = run_here("operators", "conv", "--json")
    assert [row["name"] for row in one.json["operators"]] == ["Conv"]
    everything = run_here("operators")
    assert everything.code == 0
    assert everything.stdout.count("\n") > len(ROWS)
    unknown = run_here("operators", "Convolve")
    assert unknown.code == 2
    assert "Convolve" in unknown.errors[0]

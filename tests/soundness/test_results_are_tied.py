"""Every operator's result is tied to what reads it: swapped rows are refused.

The attack of `test_freivalds.py` on one operator after the other. A constant Gather costs no cell,
so the circuit that swaps an operator's results before the next one reads them has the honest
circuit's layout, and ezkl proves it with the honest key. Its proof must not verify: it would if
the operator's result, or a rebase of it, were laid out as values without copy constraints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ezkl
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.circuits import backend
from zkml_ray.errors import StageError
from zkml_ray.schema.plan import CircuitArguments

LOGROWS = 11
Case = tuple[str, dict[str, Any], dict[str, Any], list[int], list[int]]
SCALE = 4
W = np.array([[0.5, -1.25, 2.0], [1.0, 0.75, -0.5], [0.25, 1.5, 1.0]], dtype=np.float32)

# Operator, other inputs, attributes, shape of x, shape of y. The first axis is swapped.
CASES: dict[str, Case] = {
    "MatMul of whole weights": ("MatMul", {"w": np.round(W)}, {}, [4, 3], [4, 3]),
    "MatMul, rebased": ("MatMul", {"w": W}, {}, [4, 3], [4, 3]),
    "Abs": ("Abs", {}, {}, [4, 3], [4, 3]),
    "Relu": ("Relu", {}, {}, [4, 3], [4, 3]),
    "Add": ("Add", {"w": W[:1]}, {}, [4, 3], [4, 3]),
    "Sub": ("Sub", {"w": W[:1]}, {}, [4, 3], [4, 3]),
    "Mul": ("Mul", {"w": W[:1]}, {}, [4, 3], [4, 3]),
    "Neg": ("Neg", {}, {}, [4, 3], [4, 3]),
    "Div": ("Div", {"w": np.float32(3)}, {}, [4, 3], [4, 3]),
    "Max": ("Max", {"w": np.float32(1)}, {}, [4, 3], [4, 3]),
    "ReduceSum": ("ReduceSum", {"axes": np.array([1])}, {"keepdims": 1}, [4, 3], [4, 1]),
    "ReduceMax": ("ReduceMax", {}, {"axes": [1], "keepdims": 1}, [4, 3], [4, 1]),
    "Sigmoid": ("Sigmoid", {}, {}, [4, 3], [4, 3]),
    "Erf": ("Erf", {}, {}, [4, 3], [4, 3]),
    "Sqrt": ("Sqrt", {}, {}, [4, 3], [4, 3]),
    "Sign": ("Sign", {}, {}, [4, 3], [4, 3]),
    **{
        op: (op, {}, {}, [4, 3], [4, 3])
        for op in (
            *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Exp"),
            *("Sin", "Sinh", "Tanh"),
        )
    },
    "Softmax": ("Softmax", {}, {"axis": 1}, [4, 3], [4, 3]),
    "Conv": ("Conv", {"w": W.reshape(1, 1, 3, 3)}, {"group": 1}, [2, 1, 4, 4], [2, 1, 2, 2]),
    "MaxPool": ("MaxPool", {}, {"kernel_shape": [2, 2]}, [2, 1, 4, 4], [2, 1, 2, 2]),
    "AveragePool": ("AveragePool", {}, {"kernel_shape": [2, 2]}, [2, 1, 4, 4], [2, 1, 2, 2]),
    "Einsum by rows": ("Einsum", {"w": W}, {"equation": "ck,ck->c"}, [3, 3], [3]),
}
_BELOW_ONE = {"Acos", "Asin", "Atanh"}
_WINDOWED = {"Conv", "MaxPool", "AveragePool"}

# What hinted circuits are made of: whole numbers, the input committed to as a polynomial.
HINTED: dict[str, Case] = {
    "the input itself": ("Identity", {}, {}, [4, 3], [4, 3]),
    "HardSwish": ("HardSwish", {}, {}, [4, 3], [4, 3]),
    "Gather": ("Gather", {"i": np.array([2, 0, 1, 3])}, {"axis": 0}, [4, 3], [4, 3]),
    "Concat": ("Concat", {"w": np.round(W)}, {"axis": 0}, [4, 3], [7, 3]),
    "Reshape": ("Reshape", {"s": np.array([4, 3])}, {}, [12], [4, 3]),
    "ReduceSum": ("ReduceSum", {"axes": np.array([1])}, {"keepdims": 1}, [4, 3], [4, 1]),
    "Add": ("Add", {"w": np.round(W[:1])}, {}, [4, 3], [4, 3]),
    "Sub": ("Sub", {"w": np.round(W[:1])}, {}, [4, 3], [4, 3]),
    "Mul": ("Mul", {"w": np.round(W[:1])}, {}, [4, 3], [4, 3]),
    "Mul by a power of two": ("Mul", {"w": np.float32([2.0**100])}, {}, [4, 3], [4, 3]),
} | {
    f"Einsum {equation}": ("Einsum", {"w": weight}, {"equation": equation}, source, target)
    for equation, weight, source, target in (
        ("um,m->u", np.round(W[0]), [4, 3], [4]),
        ("ukp,p->uk", np.round(W[0]), [4, 2, 3], [4, 2]),
        ("gk,kb->gb", np.round(W), [4, 3], [4, 3]),
        ("uk,kc->uc", np.round(W), [4, 3], [4, 3]),
        ("gbm,bm->gb", np.round(W), [4, 3, 3], [4, 3]),
    )
}


def operator_model(case: Case, *, swapped: bool) -> onnx.ModelProto:
    """x -> operator (-> rows in reverse order) -> + 1."""
    op, constants, attributes, source, target = case
    attributes = dict(attributes)
    if op in _WINDOWED:
        attributes |= {"strides": [2, 2] if op != "Conv" else [1, 1], "pads": [0] * 4}
        if op != "AveragePool":
            attributes["dilations"] = [1, 1]
        if op == "Conv":
            attributes["kernel_shape"] = [3, 3]
    nodes, result = [], "x"
    if op != "Identity":
        nodes = [helper.make_node(op, ["x", *constants], ["a"], "operator", **attributes)]
        result = "a"
    weights = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    if swapped:
        order = np.arange(target[0])[::-1].astype(np.int64)
        weights.append(numpy_helper.from_array(order.copy(), "order"))
        nodes.append(helper.make_node("Gather", [result, "order"], ["g"], "swap", axis=0))
        result = "g"
    weights.append(numpy_helper.from_array(np.full([1] * len(target), 1.0, np.float32), "one"))
    nodes.append(helper.make_node("Add", [result, "one"], ["y"], "sum"))
    graph = helper.make_graph(
        nodes,
        "operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, source)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, target)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def srs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("srs") / "srs"
    backend.generate_insecure_srs(path, LOGROWS)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(CASES))
def test_swapped_results_are_refused(case: str, tmp_path: Path, srs: Path) -> None:
    args = backend.run_args(
        CircuitArguments(
            input_scale=SCALE,
            param_scale=SCALE,
            decomp_base=128,
            decomp_legs=2,
            num_inner_cols=2,
            logrows=LOGROWS,
            lookup_range=(-256, 256),
        )
    )
    args.input_visibility = args.output_visibility = "public"
    size = int(np.prod(CASES[case][3]))
    values = np.random.default_rng(0).permutation(size) / 4 + 0.25
    if CASES[case][0] == "Sign":
        values -= 1.25
    elif CASES[case][0] in _BELOW_ONE:
        values /= 4
    assert verdicts(CASES[case], args, values, tmp_path, srs) == [True, False]


QUICK = {"the input itself", "HardSwish", "Einsum um,m->u"}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow) for c in sorted(HINTED)]
)
def test_swapped_results_of_hinted_circuits_are_refused(
    case: str, tmp_path: Path, srs: Path
) -> None:
    args = backend.run_args(
        CircuitArguments(
            input_scale=SCALE,
            param_scale=SCALE,
            decomp_base=128,
            decomp_legs=16,
            num_inner_cols=2,
            logrows=LOGROWS,
            lookup_range=(0, 255),
            kind="hinted",
        )
    )
    assert args.input_visibility == "polycommit"
    args.output_visibility = "public"
    size = int(np.prod(HINTED[case][3]))
    values = np.random.default_rng(0).permutation(size) + 1.0
    assert verdicts(HINTED[case], args, values, tmp_path, srs) == [True, False]


def verdicts(
    case: Case, args: Any, values: NDArray[np.float64], folder: Path, srs: Path
) -> list[bool]:
    """Whether proofs with the honest key verify: of the honest circuit, and of the swapped one."""
    for name in ("honest", "forged"):
        onnx.save(operator_model(case, swapped=name == "forged"), folder / f"{name}.onnx")
    settings = folder / "settings"
    settings.write_bytes(backend.settings_for(folder / "honest.onnx", args).data)
    for name in ("honest", "forged"):
        backend.compile_circuit(folder / f"{name}.onnx", settings, folder / f"{name}.circuit")
    vk, pk = folder / "vk", folder / "pk"
    backend.setup_keys(folder / "honest.circuit", srs, vk, pk)
    data = folder / "input.json"
    data.write_text(json.dumps({"input_data": [values.tolist()]}))
    outputs, found = [], []
    for name in ("honest", "forged"):
        circuit, witness = folder / f"{name}.circuit", folder / f"{name}.witness"
        ezkl.gen_witness(str(data), str(circuit), str(witness))
        outputs.append(json.loads(witness.read_text())["outputs"])
        try:
            proof = backend.prove(name, witness, circuit, pk, srs)
        except StageError:
            found.append(False)  # ezkl checked the witness itself
            continue
        found.append(backend.verify_proof(proof, settings, vk, srs))
    assert outputs[0] != outputs[1]
    return found

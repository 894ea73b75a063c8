"""Where a proof's commitments to its inputs lie: as many columns as ezkl lays out, in order."""

from __future__ import annotations

import json
from pathlib import Path

import ezkl
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zkml_ray.circuits import backend
from zkml_ray.circuits.challenge import UNUSABLE_ROWS, column_count
from zkml_ray.commitments.challenge import POINT_BYTES
from zkml_ray.commitments.field import encode

LOGROWS = 9
ROWS = (1 << LOGROWS) - UNUSABLE_ROWS
LENGTHS = (100, ROWS - 2, ROWS - 1, ROWS, ROWS + 2, 2 * ROWS - 3, 2 * ROWS - 2, 2 * ROWS)
"""Around where another column begins."""


def circuit(folder: Path, length: int) -> Path:
    """A folder with a circuit of two committed inputs, its settings and keys."""
    nodes = [
        helper.make_node("HardSwish", ["x0"], ["digits"]),
        helper.make_node("Gather", ["digits", "i"], ["a"], axis=0),
        helper.make_node("Gather", ["x1", "j"], ["b"], axis=0),
        helper.make_node("Mul", ["a", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two inputs",
        [
            helper.make_tensor_value_info("x0", TensorProto.FLOAT, [length]),
            helper.make_tensor_value_info("x1", TensorProto.FLOAT, [5]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [
            numpy_helper.from_array(np.array([0, length - 1]), "i"),
            numpy_helper.from_array(np.array([0, 4]), "j"),
        ],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    model = onnx.load(path)
    model.ir_version = 9
    onnx.save(model, path)
    args = ezkl.PyRunArgs()
    args.input_visibility, args.output_visibility = "polycommit", "hashed/public"
    args.param_visibility, args.disable_freivalds = "fixed", True
    args.input_scale, args.param_scale, args.num_inner_cols = 0, 0, 2
    args.logrows, args.lookup_range = LOGROWS, (0, ROWS - 26)
    settings = json.loads(backend.settings_for(path, args).data)
    settings |= {"num_rows": 2 * length, "total_assignments": 4 * length + 100}
    settings["required_range_checks"] = []
    (folder / "settings").write_text(json.dumps(settings))
    backend.compile_circuit(path, folder / "settings", folder / "circuit")
    backend.generate_insecure_srs(folder / "srs", LOGROWS)
    backend.setup_keys(*(folder / name for name in ("circuit", "srs", "vk", "pk")))
    return folder


@pytest.mark.parametrize("length", LENGTHS)
def test_proof_begins_with_the_columns_of_its_inputs(length: int, tmp_path: Path) -> None:
    folder = circuit(tmp_path, length)
    draw = np.random.default_rng(length)
    inputs = [draw.integers(0, 400, size).tolist() for size in (length, 5)]
    backend.generate_witness("chunk-000", inputs, folder / "circuit", folder / "witness")
    proof = backend.prove(
        "chunk-000", *(folder / name for name in ("witness", "circuit", "pk", "srs"))
    )
    files = [folder / name for name in ("vk", "settings", "srs")]

    def points(elements: list[int]) -> bytes:
        return backend.commitment("chunk-000", [encode(v) for v in elements], *files)

    columns = column_count(length, LOGROWS)
    first = points(inputs[0])
    # A column that nothing fills is committed to like one of zeros.
    first += (columns - len(first) // POINT_BYTES) * points([0])
    assert len(first) == columns * POINT_BYTES
    assert bytes.fromhex(proof.proof).startswith(first + points(inputs[1]))


def test_lengths_tried_reach_every_way_to_lie_at_a_columns_end() -> None:
    counts = [column_count(length, LOGROWS) for length in LENGTHS]
    filled = [length // ROWS + 1 for length in LENGTHS]
    assert counts == [1, 1, 2, 2, 2, 2, 3, 3]
    assert filled == [1, 1, 1, 2, 2, 2, 2, 3]

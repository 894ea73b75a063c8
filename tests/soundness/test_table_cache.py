"""Tables that ezkl finds in its cache are not believed.

ezkl writes every lookup table below the user's home and reads it back by name, unchecked: a table
with another entry gives another verifying key, one whose lookups admit what the model's do not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from zkml_ray.circuits import backend

LOGROWS = 10

_CHILD = f"""
import hashlib, os, sys
from pathlib import Path
from zkml_ray.circuits import backend
from zkml_ray.schema.plan import CircuitArguments
folder = Path(sys.argv[1])
if sys.argv[2] == "ezkl":
    del os.environ["EZKL_REPO_PATH"]
args = backend.run_args(CircuitArguments(
    input_scale=4, param_scale=4, decomp_base=128, decomp_legs=2, num_inner_cols=2,
    logrows={LOGROWS}, lookup_range=(0, 500)))
args.output_visibility = "public"
settings, compiled = folder / "settings", folder / "circuit"
settings.write_bytes(backend.settings_for(folder / "table.onnx", args).data)
backend.compile_circuit(folder / "table.onnx", settings, compiled)
backend.setup_keys(compiled, folder / "srs", folder / "vk", folder / "pk")
print(hashlib.sha256((folder / "vk").read_bytes()).hexdigest())
"""


def key_digest(folder: Path, whose: str) -> str:
    """Digest of a verifying key made in another process whose home is `folder`."""
    environment = {k: v for k, v in os.environ.items() if k != "EZKL_REPO_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), whose],
        env={**environment, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1]


def test_poisoned_table_changes_ezkls_key_and_not_ours(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("HardSwish", ["x"], ["y"], "table")],
        "table",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "table.onnx")
    backend.generate_insecure_srs(tmp_path / "srs", LOGROWS)
    honest = key_digest(tmp_path, "ours")
    assert not (tmp_path / ".ezkl").exists()
    assert key_digest(tmp_path, "ezkl") == honest
    (outputs,) = (tmp_path / ".ezkl" / "cache").glob("hardswish_*/outputs")
    table = bytearray(outputs.read_bytes())
    table[32 * 100] ^= 1
    outputs.write_bytes(table)
    assert key_digest(tmp_path, "ezkl") != honest
    assert key_digest(tmp_path, "ours") == honest

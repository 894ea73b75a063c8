"""A model's forward pass in ezkl's integers, and what its circuit costs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ezkl
import numpy as np
import numpy.typing as npt
import onnx

from tests.unit.chunking.builders import Array
from zkml_ray.circuits import backend
from zkml_ray.commitments.field import decode, to_signed
from zkml_ray.schema.plan import CircuitArguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """The one output as integers at its scale, and the circuit's cells."""

    integers: npt.NDArray[np.int64]
    scale: int
    cells: int
    einsum_cells: int

    def reals(self) -> npt.NDArray[np.float64]:
        return np.ldexp(self.integers.astype(np.float64), -self.scale)


def run_quantised(
    proto: onnx.ModelProto, feeds: Mapping[str, Array], *, scale: int = 10
) -> Quantised:
    """Settings and witness of a bare model: private inputs, one public output."""
    args = backend.run_args(
        CircuitArguments(
            input_scale=scale,
            param_scale=scale,
            decomp_base=128,
            decomp_legs=4,
            num_inner_cols=5,
            logrows=14,
        )
    )
    args.output_visibility = "public"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "bare.onnx"
        onnx.save(proto, path)
        settings = backend.settings_for(path, args)
        (folder / "settings").write_bytes(settings.data)
        backend.compile_circuit(path, folder / "settings", folder / "circuit")
        order = [value.name for value in proto.graph.input]
        data = {"input_data": [np.asarray(feeds[n]).reshape(-1).tolist() for n in order]}
        (folder / "input").write_text(json.dumps(data))
        ezkl.gen_witness(str(folder / "input"), str(folder / "circuit"), str(folder / "witness"))
        witness = json.loads((folder / "witness").read_text())
    raw = json.loads(settings.data)
    return Quantised(
        integers=np.array([to_signed(decode(v)) for v in witness["outputs"][0]]),
        scale=settings.output_scales[0],
        cells=raw["total_assignments"],
        einsum_cells=raw["einsum_params"]["total_einsum_col_size"],
    )

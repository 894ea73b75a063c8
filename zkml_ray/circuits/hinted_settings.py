"""Settings of hinted circuits, computed from the chunk model.

`ezkl.gen_settings` would lay the circuit out to count it, for seconds to minutes where it has
millions of cells, and most of its counts are not those of the circuit that is compiled: it counts
a decomposition of the input, with its range checks, as it would make of a private one, and, because
it takes nothing for assigned while it counts, what only renames numbers. A hinted chunk model says
what it takes; the rest follows from its inputs, outputs and constants (docs/adr/0030).

What decides about the circuit:

- run arguments and the one table, which are the plan's and the operators';
- cells (`recipe.cell_count`) and constants, which decide only how many columns there are: too few
  make setup fail;
- range checks and equations of Freivalds' argument: none. An operator that needed one could not be
  laid out without it, so leaving them out can refuse a proof but admit none;
- lengths of the input and of what is hashed.

Source: ezkl 23.0.5, `graph/model.rs` (gen_settings, configure), `graph/modules.rs`,
`circuit/modules/poseidon.rs` (num_rows), `tensor/var.rs` (constant_cols).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zkml_ray.canonical import canonical_json
from zkml_ray.errors import StageError
from zkml_ray.schema.plan import CircuitArguments

if TYPE_CHECKING:
    import onnx

SPARE_ROWS: Final[int] = 16
SPARE_SHARE: Final[int] = 50
"""A hinted circuit gets so many more rows than were counted, and one in so many."""

SPARE_CONSTANTS: Final[int] = 16
"""Room for constants that ezkl makes of others, such as the zero that an argument begins with."""

HASH_ROWS: Final[int] = 41
"""Rows of the hash region for every hashed element..."""

HASH_ROWS_ONCE: Final[int] = 2
"""...and for every hash."""

_IDENTITY: Final = "zkml_ray/identity"

_FREE: Final = frozenset({"Concat", "Gather", "Reshape"})
_ARITHMETIC: Final = frozenset({"Add", "Einsum", "MatMul", "Mul", "ReduceSum", "Sub"})


def hinted_settings(onnx_path: Path, arguments: CircuitArguments, version: str) -> bytes:
    """The canonical settings of a hinted chunk model.

    Args:
        onnx_path: The chunk's ONNX file.
        arguments: Its circuit arguments.
        version: Of ezkl.

    Raises:
        StageError: The model is no hinted circuit.
    """
    # Imported here: who verifies by a plan's digest needs no onnx.
    import onnx

    from zkml_ray.chunking.hinted.recipe import cell_count

    try:
        model = onnx.load(onnx_path)
        columns = arguments.num_inner_cols
        cells = with_spare_rows(cell_count(model, columns), columns)
    except Exception as error:  # bytes that are no model, or one without a recipe
        raise _failed(onnx_path, f"its model is not a hinted chunk: {error}") from None
    denominator = 1 << arguments.input_scale
    table = _table(onnx_path, model, denominator)
    outputs = [_size(value) for value in model.graph.output]
    # Numbers of a function's scale are added, as zeros, to the last boundary (`Circuit.finish`).
    label = 0 if "HardSwish" in table else arguments.input_scale
    # So are those of what a challenge checks.
    leaves = [value.name.rpartition("/")[0] for value in model.graph.output]
    last = [name for name in leaves if name != _IDENTITY][-1]
    settings = {
        "run_args": _run_args(arguments),
        "num_rows": cells // columns,
        "total_assignments": cells,
        "total_const_size": _constants(model) + SPARE_CONSTANTS,
        "total_dynamic_col_size": 0,
        "max_dynamic_input_len": 0,
        "num_dynamic_lookups": 0,
        "num_shuffles": 0,
        "total_shuffle_col_size": 0,
        "einsum_params": {"equations": [], "total_einsum_col_size": 0},
        "model_instance_shapes": [],
        "model_output_scales": [label if name in (last, _IDENTITY) else 0 for name in leaves],
        "model_input_scales": [0] * len(model.graph.input),
        "module_sizes": {
            "polycommit": [_size(value) for value in model.graph.input],
            "poseidon": [
                sum(HASH_ROWS * size + HASH_ROWS_ONCE for size in outputs),
                [len(outputs)],
            ],
        },
        "required_lookups": [table],
        "required_range_checks": [],
        "check_mode": "UNSAFE",
        "version": version,
        "num_blinding_factors": None,
        "timestamp": 0,
        "input_types": ["F32"] * len(model.graph.input),
        "output_types": ["F32"] * len(outputs),
    }
    return canonical_json(settings)


def with_spare_rows(cells: int, columns: int) -> int:
    """The cells that a hinted circuit of so many counted cells is given."""
    rows = -(-cells // columns)
    return (rows + SPARE_ROWS + rows // SPARE_SHARE) * columns


def _table(path: Path, model: onnx.ModelProto, denominator: int) -> dict[str, Any]:
    """The one table: the identity's or a function's."""
    tables: dict[str, dict[str, Any]] = {
        "HardSwish": {"scale": 1},
        "Erf": {"scale": denominator},
        "Exp": {"scale": denominator, "base": 2.7182817},
        "Tanh": {"scale": denominator},
    }
    found = {node.op_type for node in model.graph.node} - _FREE - _ARITHMETIC
    if len(found) != 1 or not found <= tables.keys():
        raise _failed(path, f"a hinted circuit has one table, but this has {sorted(found)}")
    (name,) = found
    # A function works on numbers of the circuit's scale; the identity is one at scale 0 alone.
    return {name: tables[name]}


def _constants(model: onnx.ModelProto) -> int:
    """Different numbers among the circuit's constants: each takes a cell of a fixed column.

    Weights outside the circuit, which only the recipe reads, are none.
    """
    import numpy as np
    import onnx

    read = {name for node in model.graph.node for name in node.input}
    found = [
        np.unique(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name in read
    ]
    return int(np.unique(np.concatenate(found)).size) if found else 0


def _size(value: onnx.ValueInfoProto) -> int:
    return math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _run_args(arguments: CircuitArguments) -> dict[str, Any]:
    """What `backend.run_args` gives, in the words of a settings file."""
    return {
        "input_scale": 0,
        "param_scale": arguments.param_scale,
        "rebase_scale": None,
        "scale_rebase_multiplier": arguments.scale_rebase_multiplier,
        "lookup_range": list(arguments.lookup_range),
        "logrows": arguments.logrows,
        "num_inner_cols": arguments.num_inner_cols,
        "variables": [["batch_size", 1]],
        "input_visibility": "KZGCommit",
        "output_visibility": {"Hashed": {"hash_is_public": True, "outlets": []}},
        "param_visibility": "Fixed",
        "rebase_frac_zero_constants": True,
        "check_mode": "UNSAFE",
        "decomp_base": arguments.decomp_base,
        "decomp_legs": arguments.decomp_legs,
        "bounded_log_lookup": False,
        "ignore_range_check_inputs_outputs": False,
        "epsilon": 2.220446049250313e-16,
        "disable_freivalds": True,
    }


def _failed(path: Path, reason: str) -> StageError:
    chunk_id = path.stem if path.stem.startswith("chunk-") else None
    return StageError(f"{path.stem}: {reason}", stage="plan", chunk_id=chunk_id)

"""Operator -> definition, and the pass that writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.definitions import (
    normalisations,
    pointwise,
    powers,
    recurrent,
    reductions,
    resize,
)
from zkml_ray.chunking.normal_form.moves import MOVES, is_move, moved
from zkml_ray.chunking.normal_form.writer import Writer

DEFINITIONS: Final[Mapping[str, Callable[[Writer], ir.Value | list[ir.Value]]]] = {
    "Ceil": pointwise.ceil,
    "Celu": pointwise.celu,
    "CumSum": reductions.cum_sum,
    "Elu": pointwise.elu,
    "GRU": recurrent.recurrent,
    "Gelu": pointwise.gelu,
    "GlobalLpPool": powers.global_lp_pool,
    "GlobalMaxPool": reductions.global_max_pool,
    "GroupNormalization": normalisations.group_normalisation,
    "HardSigmoid": pointwise.hard_sigmoid,
    "HardSwish": pointwise.hard_swish,
    "Hardmax": reductions.hardmax,
    "InstanceNormalization": normalisations.instance_normalisation,
    "LRN": powers.local_response,
    "LSTM": recurrent.recurrent,
    "LogSoftmax": reductions.log_softmax,
    "LpNormalization": powers.lp_normalisation,
    "LpPool": powers.lp_pool,
    "Mean": reductions.mean,
    "Mish": pointwise.mish,
    "PRelu": pointwise.prelu,
    "RMSNormalization": normalisations.rms_normalisation,
    "RNN": recurrent.recurrent,
    "Reciprocal": pointwise.reciprocal,
    "ReduceL1": reductions.reduce_l1,
    "ReduceL2": reductions.reduce_l2,
    "ReduceLogSum": reductions.reduce_log_sum,
    "ReduceLogSumExp": reductions.reduce_log_sum_exp,
    "ReduceProd": reductions.reduce_prod,
    "ReduceMin": reductions.reduce_min,
    "ReduceSumSquare": reductions.reduce_sum_square,
    "Resize": resize.resize,
    "Round": pointwise.round_to_even,
    "Selu": pointwise.selu,
    "Shrink": pointwise.shrink,
    "Softplus": pointwise.softplus,
    "Softsign": pointwise.softsign,
    "Swish": pointwise.swish,
    "Upsample": resize.resize,
}

WRITTEN: Final = frozenset(DEFINITIONS) | frozenset(MOVES)
"""Operators that are written with others, in at least one of their forms."""


CHANGED: Final = frozenset({"Hardmax", "Resize", "Upsample"})
"""Operators that onnx's converter (1.23) takes for others: the first versions of Resize leave open
how coordinates are meant, and are given another meaning by default; of Hardmax
the axes are not, where version 13 has another meaning."""


class WriteDefinitions(InPlacePass):
    """Pre: shapes inferred, constants are initializers. Post: none that moves or has a definition.

    Exact where its definition says so.
    """

    def __init__(self, opset: int, operators: frozenset[str]) -> None:
        """Write some operators.

        Args:
            opset: Version in which they are read.
            operators: Their names.
        """
        super().__init__()
        self._opset = opset
        self._operators = operators

    def call(self, model: ir.Model) -> PassResult:
        """Replace every such node."""
        modified = False
        for node in list(model.graph):
            if node.domain not in ("", "ai.onnx") or node.op_type not in self._operators:
                continue
            write = Writer(model, node, self._opset)
            define = DEFINITIONS.get(node.op_type)
            if is_move(write):
                write.replace([moved(write)])
            elif define is not None:
                made = define(write)
                write.replace([made] if isinstance(made, ir.Value) else made)
            else:
                continue
            modified = True
        return PassResult(model, modified=modified)

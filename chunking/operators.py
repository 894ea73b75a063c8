"""Operators that a chunk circuit may contain.

The list is what ezkl 23.0.5 accepts (through tract) and this project has tried. `SELECTING`
operators only move or pick elements, so a range proved for their inputs holds for their outputs.
`RANGE_CHECKED` operators decompose what they output, or what they pass on, into digits, which
bounds it by the decomposition's range.
"""

from __future__ import annotations

from typing import Final

SELECTING: Final = frozenset(
    {
        "Concat",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)

RANGE_CHECKED: Final = frozenset({"Relu"})

WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""Operators that carry the work: a layer is one of these with what follows it."""

SUPPORTED: Final = (
    SELECTING
    | RANGE_CHECKED
    | WEIGHTED
    | frozenset(
        {
            "Abs",
            "Acos",
            "Acosh",
            "Add",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "AveragePool",
            "BatchNormalization",
            "Clip",
            "Cos",
            "Cosh",
            "Div",
            "Erf",
            "Exp",
            "Expand",
            "Floor",
            "GlobalAveragePool",
            "LayerNormalization",
            "LeakyRelu",
            "Log",
            "Max",
            "Min",
            "Mul",
            "Neg",
            "Pad",
            "Pow",
            "ReduceMax",
            "ReduceMean",
            "ReduceSum",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sinh",
            "Softmax",
            "Sqrt",
            "Sub",
            "Sum",
            "Tanh",
            "Where",
        }
    )
)

FOLDABLE: Final = frozenset(
    {
        *("Concat", "Expand", "Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze"),
        *("Transpose", "Unsqueeze", "Where", "Identity", "Tile", "ConstantOfShape", "Cast"),
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Mod", "Sqrt"),
        *("Floor", "Ceil", "Range", "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin"),
        *("Shape", "Size"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor"),
        *("NonZero", "OneHot", "ArgMax", "ArgMin", "GatherND", "GatherElements", "ScatterND"),
        *("ScatterElements", "Trilu", "CumSum", "Sign", "Round", "EyeLike", "BitShift"),
    }
)
"""Operators that are computed in advance where all they depend on is constant
(`normal_form.constants`). Those that are not in `SUPPORTED` may stand nowhere else."""

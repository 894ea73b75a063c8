"""What becomes of each of ONNX's operators, collected from where it is decided.

An operator that is written with others is proved as those are; one that is refused in a table may
still stand where it depends on constants alone, or where no output depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from zkml_ray.chunking.hinted.operators import OPERATORS
from zkml_ray.chunking.normal_form.attributes import READ
from zkml_ray.chunking.normal_form.classical.table import CLASSICAL, DOMAIN
from zkml_ray.chunking.normal_form.definitions.table import DEFINITIONS
from zkml_ray.chunking.normal_form.expanded import EXPANDED
from zkml_ray.chunking.normal_form.logic import LOGIC
from zkml_ray.chunking.normal_form.moves import MOVES
from zkml_ray.chunking.normal_form.quantised import QUANTISED
from zkml_ray.chunking.normal_form.tails import TAILS
from zkml_ray.chunking.operators import FOLDABLE, SUPPORTED

_REMOVED = {
    "BatchNormalization": "taken into the weights before it, or written as Mul and Add",
    "Constant": "is a constant",
    "Dropout": "left out: the identity in inference",
    "Identity": "left out",
    "If": "the branch that constants choose is taken",
    "IsInf": "known of scores: infinite where a constant mask makes them so",
    "IsNaN": "known of a Softmax: rows whose keys are all masked by -inf",
    "Scan": "its body once a slice",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """What becomes of an operator.

    Attributes:
        name: Its name in ONNX.
        hinted: Whether hinted circuits have it, at least in some of its forms.
        native: Whether native circuits have it, at least in some of its forms.
        how: How it is brought into a form that circuits have, or what is read of it; empty where
            it is refused.
    """

    name: str
    hinted: bool
    native: bool
    how: str

    @property
    def fate(self) -> str:
        """In a word or two."""
        if self.hinted or self.native:
            return " and ".join(
                w for w, has in (("hinted", self.hinted), ("native", self.native)) if has
            )
        if not self.how:
            return "refused"
        return (
            "on constants"
            if self.name in FOLDABLE - LOGIC and self.how == _ON_CONSTANTS
            else "rewritten"
        )


_ON_CONSTANTS = "computed in advance where it depends on constants alone"


def operator_rows() -> list[OperatorRow]:
    """A row for every operator of ONNX that is not deprecated, by name, and of ai.onnx.ml."""
    known = {
        schema.name
        for schema in onnx.defs.get_all_schemas()
        if schema.domain == "" and not schema.deprecated
    }
    classical = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == DOMAIN
    }
    return [
        *(_row(name) for name in sorted(known | {"Upsample"})),
        *(_classical_row(name) for name in sorted(classical)),
    ]


def _classical_row(name: str) -> OperatorRow:
    how = ""
    if name in CLASSICAL:
        how = f"written with others: {_first_line(CLASSICAL[name].__doc__)}"
    elif name in TAILS:
        how = "cut off at a model's end: what it reads is proved"
    return OperatorRow(name=f"{DOMAIN}.{name}", hinted=False, native=False, how=how)


def _row(name: str) -> OperatorRow:
    written = _written(name)
    stands = not written or name in ("Pad",)
    return OperatorRow(
        name=name,
        hinted=name in OPERATORS and name not in _REMOVED and stands,
        native=name in SUPPORTED and name not in _REMOVED and stands,
        how=_how(name, written),
    )


def _how(name: str, written: str) -> str:
    if name in _REMOVED:
        return _REMOVED[name]
    parts = [written] if written else []
    if name in SUPPORTED and (not written or name == "Pad"):
        parts.append(_read(name))
    if not parts and name in FOLDABLE:
        parts.append(_ON_CONSTANTS)
    return "; ".join(part for part in parts if part)


def _written(name: str) -> str:
    if name in DEFINITIONS:
        return f"written with others: {_first_line(DEFINITIONS[name].__doc__)}"
    if name in EXPANDED:
        return "written with others, as ONNX defines it"
    if name in MOVES:
        return "one Gather of known places"
    if name in QUANTISED:
        return "weights as they are, activations not rounded to the model's own steps"
    if name in LOGIC and name not in SUPPORTED:
        return "written with others, truth as 0 or 1, by Sign"
    return ""


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0].rstrip(".")


def _read(name: str) -> str:
    read = READ.get(name)
    if read is None:
        return ""
    parts = []
    if read.attributes:
        parts.append(f"attributes {', '.join(sorted(read.attributes))}")
    if read.constant:
        inputs = ", ".join(str(position + 1) for position in read.constant)
        parts.append(f"constant: input {inputs}")
    if read.most is not None and read.most > 1:
        parts.append(f"at most {read.most} inputs")
    return "native: " + "; ".join(parts) if parts else ""

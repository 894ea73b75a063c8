"""Hinted circuits whose prover fits every later hint to the ones that he makes wrong.

A forger runs the recipe, changes what a step gives, and goes on with it: so nothing but the check
under attack can tell. What a circuit computes from its input he cannot choose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ezkl
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.unit.chunking.hinted_circuit import HintedChunk, hinted_chunk, saved
from zkml_ray.chunking.hinted.numbers import Arithmetic
from zkml_ray.chunking.hinted.recipe import _entry, _product, _Solver, _split, filled, whole
from zkml_ray.circuits import backend
from zkml_ray.commitments.field import MODULUS, decode, encode

Ints = NDArray[np.int64]

COLUMNS = 2


class Forger(_Solver):
    """The recipe's solver, one step after the other.

    Attributes:
        hints: The hints so far, a list of vectors.
        start: Where the last step's hints begin in it.
    """

    start = 0

    @property
    def numbers(self) -> Arithmetic:
        """The circuit's."""
        return self._numbers

    def take(self, step: Mapping[str, Any], incoming: Mapping[str, Ints]) -> None:
        """Do one step."""
        self.start = len(self.hints)
        if step["do"] == "receive":
            self.receive(step, np.asarray(incoming[step["boundary"]], dtype=np.int64).ravel())
        else:
            getattr(self, step["do"])(step)

    def _fine(self, values: Sequence[int], fine: Sequence[int], name: str) -> None:
        """The nearest that the digits can hold."""
        most = (self._numbers.divisor - 1) * sum(1 << (fine[1] * i) for i in range(fine[0]))
        super()._fine([min(max(v, 0), most) for v in values], fine, name)

    def fine(self, step: Mapping[str, Any]) -> list[int]:
        """The numbers that a step's first hints are the digits of."""
        digits = self.hints[self.start : self.start + step["fine"][0]]
        together = sum(d.astype(object) << (step["fine"][1] * i) for i, d in enumerate(digits))
        return [int(v) for v in together]

    def refine(self, step: Mapping[str, Any], numbers: Sequence[int]) -> None:
        """Other ones, and nothing behind them."""
        del self.hints[self.start :]
        self._fine(numbers, step["fine"], "forged")

    def hold(self, step: Mapping[str, Any], differences: Sequence[int]) -> None:
        """Digits of what is to be at or above zero, for as long as it is."""
        self._places([max(v, 0) for v in differences], step["places"])

    def raise_hint(self, which: int, place: int, amount: int) -> None:
        """Add to an element of the last step's hints (`which` of its vectors)."""
        changed = self.hints[self.start + which].astype(object)
        changed[place] += amount
        self.hints[self.start + which] = changed

    def raise_wire(self, name: str, place: int, amount: int) -> None:
        """Have later steps compute with another value."""
        wire = self._wires[name].copy()
        wire[place] += amount
        self._wires[name] = wire


Change = Callable[[Forger, Mapping[str, Any]], None]
"""Changes a step's hints and wires after it was done."""

Rewrite = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Has another step done in a step's place."""


def nothing(forger: Forger, step: Mapping[str, Any]) -> None:
    """Stay honest."""


def itself(step: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stay honest."""
    return step


def at(kind: str, number: int, change: Change) -> Change:
    """A change of the one step of a kind that has so many of its kind before it."""
    seen = iter(range(1 << 10))

    def only(forger: Forger, step: Mapping[str, Any]) -> None:
        if step["do"] == kind and next(seen) == number:
            change(forger, step)

    return only


def shares(wrong: Callable[[int], int], rows: slice = slice(None)) -> Change:
    """Another reciprocal sum, with the digits of what is not negative then; results follow."""

    def change(forger: Forger, step: Mapping[str, Any]) -> None:
        target, honest = step["target"], forger.fine(step)
        forged = np.array(honest, dtype=object)
        forged[rows] = [wrong(v) for v in forged[rows]]
        weights = forger._wires[step["weights"]].reshape(step["rows"][:2])
        totals = weights.sum(axis=1).tolist()
        forger.refine(step, forged.tolist())
        for sign in (1, -1):
            left = zip(forged.tolist(), totals, strict=True)
            forger.hold(step, [sign * ((r + sign) * v - target) for r, v in left])
        forger._wires[step["reciprocal"]] = forged.astype(np.int64)

    return at("share", 0, change)


def root_off_by(amount: int, row: int = 0) -> Change:
    """Another reciprocal root, with the digits of what is then not negative; results follow."""

    def change(forger: Forger, step: Mapping[str, Any]) -> None:
        values = forger._wires[step["source"]][forger._array(step["index"])]
        centred = values * values.shape[1] - values.sum(axis=1, keepdims=True)
        roots = forger.fine(step)
        roots[row] += amount
        squares = [int((c.astype(object) ** 2).sum()) for c in centred]
        spread = [step["factor"] * v + step["epsilon"] for v in squares]
        forger.refine(step, roots)
        for sign in (1, -1):
            left = zip(roots, spread, strict=True)
            forger.hold(step, [sign * ((r + sign) ** 2 * v - step["target"]) for r, v in left])
        forger._wires[step["wire"]] = _product(centred, roots).ravel()

    return at("normalise", 0, change)


def moved_down(amount: int) -> Change:
    """All rows stand lower in the exponential's table: every distance is so much longer.

    Scores that fall out of the table at its beginning are as far below as it reaches, as ever; no
    check but that of the rows' tops can tell.
    """

    def change(forger: Forger, step: Mapping[str, Any]) -> None:
        numbers, top = forger.numbers, step["row_top"]
        near, *others = forger.hints[forger.start : forger.start + 1 + 2 * numbers.digits]
        further, largest = (
            sum(d << (numbers.overlap_bits * i) for i, d in enumerate(part))
            for part in (others[: numbers.digits], others[numbers.digits :])
        )
        distance = near + further + amount
        below = np.minimum(distance, top)
        forger.hints[forger.start : forger.start + 1 + 2 * numbers.digits] = [
            below,
            *_split(distance - below, numbers),
            *_split(largest + amount, numbers),
        ]
        forger._wires[step["below"]] = below
        forger._wires[step["wire"]] = top - below

    return at("settle", 0, change)


class Target:
    """A model as one hinted circuit.

    Attributes:
        chunk: The circuit.
        whole: Its honest inputs.
        stride: log2 of the weight between two packed equations; of all, if they are several.
    """

    def __init__(
        self,
        folder: Path,
        proto: onnx.ModelProto,
        numbers: Arithmetic,
        arrays: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self.chunk: HintedChunk = hinted_chunk(proto, numbers, columns=COLUMNS)
        self.whole = self.chunk.quantised(arrays)
        self._model = onnx.ModelProto.FromString(self.chunk.data)
        constants = [numpy_helper.to_array(t) for t in self._model.graph.initializer]
        powers = (a for a in constants if a.ndim == 1 and len(a) > 1 and a[0] == 1)
        self.stride = {int(np.log2(a[1])) for a in powers if a[1] > 1 << numbers.logrows}
        self._folder = folder
        self._path = saved(self.chunk, folder)
        self._strict = folder / "circuit.ezkl"
        arguments = self.chunk.arguments()
        settings = folder / "settings.json"
        settings.write_bytes(backend.derive_settings(self._path, arguments).data)
        backend.compile_circuit(self._path, settings, self._strict)
        # The same operators, whose forward pass admits inputs that the decomposition does not.
        args = backend.run_args(arguments)
        args.decomp_base, args.decomp_legs = 1 << 14, 9
        settings.write_bytes(backend.settings_for(self._path, args).data)
        self._loose = folder / "loose.ezkl"
        backend.compile_circuit(self._path, settings, self._loose)

    def steps(self) -> list[dict[str, Any]]:
        """The recipe's steps."""
        found: list[dict[str, Any]] = json.loads(_entry(self._model))["steps"]
        return found

    def vector(self, change: Change = nothing, rewrite: Rewrite = itself) -> list[int]:
        """The circuit's input, with hints that follow from what was changed."""
        constants = {t.name: t for t in self._model.graph.initializer}

        def array(name: str) -> Ints:
            return whole(numpy_helper.to_array(constants[name]))

        forger = Forger(self.chunk.numbers, array, "chunk-000")
        for step in self.steps():
            done = rewrite(step)
            forger.take(done, self.whole)
            change(forger, done)
        chunk = self.chunk
        given = [v for t in chunk.incoming for v in self.whole[t.info.name].ravel().tolist()]
        for tensor in (*chunk.incoming, *chunk.outgoing):
            given += chunk.salts(tensor)
        return filled(self._model, np.concatenate(forger.hints), given)

    def accepts(self, vector: list[int]) -> bool:
        """Whether all constraints hold for an input, whatever it makes of the outputs."""
        data, witness = self._folder / "input.json", self._folder / "witness.json"
        data.write_text(json.dumps({"input_data": [[encode(int(v) % MODULUS) for v in vector]]}))
        ezkl.gen_witness(str(data), str(self._loose), str(witness))
        try:
            return bool(ezkl.mock(str(witness), str(self._strict)))
        except RuntimeError as error:
            first, *reasons = str(error).splitlines()
            assert first.endswith("verification failed:")
            assert all("not satisfied" in reason for reason in reasons if reason), reasons
            return False

    def outputs(self) -> list[int]:
        """The leaves that the last input was made into."""
        witness = json.loads((self._folder / "witness.json").read_text())
        return [decode(v) for tensor in witness["outputs"] for v in tensor]

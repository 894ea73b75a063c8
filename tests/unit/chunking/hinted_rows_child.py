"""Lays circuits out in a process of its own, where ezkl's log tells how many cells they take.

ezkl keeps the log level that it finds at its first use, so the parent, which has used it, cannot
ask. Reads a JSON list of [model, settings, witness] from stdin and writes a list of
[cells, cells of them that are looked up, whether the layout and its constraints hold with the
settings as they are].
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import sys
from collections.abc import Collection
from pathlib import Path

TABLES = ("HARDSWISH", "EXP", "ERF")
"""Operators that are lookups, as ezkl's log names them."""


class Coordinates(logging.Handler):
    """Keeps the coordinates between which ezkl says it laid out every node of a layout."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.operator = ""
        self.laid: list[tuple[str, int]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage())
        node = re.match(r"laying out (\d+): (\w+)", text)
        if node:
            if node[1] == "0":  # a layout is made several times
                self.laid.clear()
            self.operator = node[2]
        found = re.search(r"coord=(\d+)", text)
        if found:
            self.laid.append((self.operator, int(found[1])))

    @property
    def last(self) -> int:
        return self.laid[-1][1]

    def cells_of(self, operators: Collection[str]) -> int:
        """Cells laid out for all nodes of some operators."""
        pairs = itertools.pairwise(self.laid)
        return sum(end - start for (name, start), (_, end) in pairs if name in operators)


def main() -> None:
    coordinates = Coordinates()
    logging.getLogger().addHandler(coordinates)
    logging.getLogger().setLevel(logging.DEBUG)
    import ezkl

    answers = []
    for model, settings, witness in json.load(sys.stdin):
        folder = Path(settings).parent
        roomy, compiled = folder / "roomy.json", str(folder / "mocked.ezkl")
        document = json.loads(Path(settings).read_text())
        document |= {n: 2 * document[n] for n in ("num_rows", "total_assignments")}
        roomy.write_text(json.dumps(document))
        ezkl.compile_circuit(model, compiled, str(roomy))
        if not ezkl.mock(witness, compiled):
            raise RuntimeError(f"{model}: its constraints do not hold")
        cells, looked_up = coordinates.last, coordinates.cells_of(TABLES)
        ezkl.compile_circuit(model, compiled, settings)
        try:
            held = bool(ezkl.mock(witness, compiled))
        except BaseException as error:  # a panic is not an Exception
            held = False
            print(f"{model}: {error}", file=sys.stderr)
        answers.append([cells, looked_up, held])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()

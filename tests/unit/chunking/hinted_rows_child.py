"""Lays circuits out in a process of its own, where ezkl's log tells how many cells they take.

ezkl keeps the log level that it finds at its first use, so the parent, which has used it, cannot
ask. Reads a JSON list of [model, settings, witness] from stdin and writes a list of
[cells, whether the layout and its constraints hold with the settings as they are].
"""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path


class Coordinates(logging.Handler):
    """Keeps the last coordinate that ezkl says it laid out."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.last = 0

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"coord=(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage()))
        if found:
            self.last = int(found[1])


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
        cells = coordinates.last
        ezkl.compile_circuit(model, compiled, settings)
        try:
            held = bool(ezkl.mock(witness, compiled))
        except BaseException as error:  # a panic is not an Exception
            held = False
            print(f"{model}: {error}", file=sys.stderr)
        answers.append([cells, held])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()

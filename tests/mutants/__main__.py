"""`make mutants`: plants every mutant of the list; fails if one lives.

Arguments, if any, are parts of titles: only mutants with one of them are planted.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.mutants.gate import tried
from tests.mutants.planted import MUTANTS


def main(wanted: list[str]) -> int:
    """Exit code: 0 if all are killed."""
    chosen = [m for m in MUTANTS if not wanted or any(part in m.title for part in wanted)]
    counts: Counter[str] = Counter()
    seconds = 0.0
    with tempfile.TemporaryDirectory(prefix="zkml-ray-mutants-") as folder:
        for result in tried(chosen, Path(folder)):
            counts[result.outcome] += 1
            seconds += result.seconds
            print(
                f"{result.outcome:>14} {result.seconds:5.1f} s  {result.mutant.title}", flush=True
            )
            if result.outcome not in ("killed", "lived"):
                print(result.output)
    found = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    print(f"{len(chosen)} mutants in {seconds:.0f} s: {found}")
    return 0 if counts["killed"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

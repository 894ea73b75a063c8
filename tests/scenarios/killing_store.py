"""A run in a process that kills itself (SIGKILL) at a chosen write to its store.

    python -m tests.scenarios.killing_store MODEL STORE RUN WRITE MOMENT ADDRESS

WRITE counts from 0; MOMENT is "before" or "after". With WRITE beyond the last one the run ends and
prints the number of writes it made.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from zkml_ray import PlanOptions, prove_distributed
from zkml_ray.stores.local import LocalStore


class KillingStore(LocalStore):
    """A folder whose chosen write is this process's last act."""

    def __init__(self, root: str, write: int, moment: str) -> None:
        super().__init__(root)
        self.writes = 0
        self._write_number = write
        self._moment = moment

    def put(self, key: str, data: bytes) -> None:
        self._die("before")
        super().put(key, data)
        self._die("after")
        self.writes += 1

    def put_file(self, key: str, path: Path, *, sha256: str | None = None) -> str:
        self._die("before")
        digest = super().put_file(key, path, sha256=sha256)
        self._die("after")
        self.writes += 1
        return digest

    def _die(self, moment: str) -> None:
        if self.writes == self._write_number and moment == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    model, root, run_id, write, moment, address = sys.argv[1:]
    store = KillingStore(root, int(write), moment)
    run = prove_distributed(
        model,
        workers=2,
        threads=1,
        store=store,
        run_id=run_id,
        options=PlanOptions(scale=8, layers_per_chunk=1),
        address=address or None,
    )
    print(f"{store.writes} writes, verified {run.verified}")


if __name__ == "__main__":
    main()

"""One measurement of a circuit, as a process of its own: what a worker does, and what it took.

Started as `python -m zkml_ray.cost.measure_child FOLDER SRS ACTION REPEATS`. FOLDER holds
chunk.onnx, settings.json and input.json (the inputs' field elements, hexadecimal). "setup"
compiles and makes keys, "prove" makes the witness and proves; each prints one JSON object: CPU
seconds of every repeat, wall seconds of the fastest, and by how much the resident set grew. The
number of threads is RAYON_NUM_THREADS: rayon fixes it at its first use in a process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from zkml_ray.circuits import backend
from zkml_ray.resident import peak_rss, reset_peak_rss


def main() -> None:
    """Measure and print."""
    folder, srs, action, repeats = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]

    def setup() -> None:
        backend.compile_circuit(
            folder / "chunk.onnx", folder / "settings.json", folder / "circuit.ezkl"
        )
        backend.setup_keys(folder / "circuit.ezkl", srs, folder / "vk.key", folder / "pk.key")

    proofs: list[int] = []

    def prove() -> None:
        proof = backend.prove(
            "chunk-000",
            folder / "witness.json",
            folder / "circuit.ezkl",
            folder / "pk.key",
            srs,
        )
        proofs.append(len(proof.proof) // 2)

    reset_peak_rss()
    before = peak_rss()
    work: Callable[[], None] = setup
    if action == "prove":
        tensors = json.loads((folder / "input.json").read_text())
        backend.generate_witness(
            "chunk-000", tensors, folder / "circuit.ezkl", folder / "witness.json"
        )
        work = prove
    runs = []
    for _ in range(int(repeats)):
        cpu, wall = time.process_time(), time.monotonic()
        work()
        runs.append((time.process_time() - cpu, time.monotonic() - wall))
    print(
        json.dumps(
            {
                "cpu_s": [cpu for cpu, _ in runs],
                "wall_s": min(wall for _, wall in runs),
                "grown_bytes": peak_rss() - before,
                "proof_bytes": max(proofs, default=0),
            }
        )
    )


if __name__ == "__main__":
    main()

"""A chunk's challenge: what the prover answers, and what is checked beside `ezkl.verify`.

Only for chunks whose plan has weights of products outside the circuit
(`ChunkPlan.weights_sha256`). `commitments.challenge` has the transcript,
`chunking.hinted.challenge` the circuit, docs/adr/0037 why it is sound. Both checks are needed: a
proof that verifies, but whose last instance is not the expected one, proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zkml_ray.circuits import backend
from zkml_ray.commitments.challenge import (
    COUNT,
    POINT_BYTES,
    Challenges,
    Transcript,
    leaf_hash,
    read_weights,
    value_at,
    weighted,
)
from zkml_ray.commitments.field import encode
from zkml_ray.errors import ProofRejectedError
from zkml_ray.schema.plan import ChunkPlan
from zkml_ray.schema.proof import ChunkProof

UNUSABLE_ROWS: Final = 6
"""Rows at the end of an input's column: what ezkl 23.0.5 takes to be the blinding factors before
any gate exists, and one."""


def column_count(length: int, logrows: int) -> int:
    """Columns that ezkl gives an input (23.0.5: `VarTensor::new_unblinded_advice`)."""
    rows = (1 << logrows) - UNUSABLE_ROWS
    columns = length // rows + 1
    return (length + columns) // rows + 1


def answer(
    chunk: ChunkPlan,
    *,
    weights: bytes,
    vk_sha256: str,
    leaves: Sequence[int],
    vk_path: Path,
    settings_path: Path,
    srs_path: Path,
    witness_path: Path,
) -> bytes:
    """Fill a witness that was made with zeros for the challenges and for what depends on them.

    Args:
        chunk: The chunk.
        weights: Its products' weights.
        vk_sha256: Digest of its verifying key.
        leaves: Leaf hashes that the proof will show.
        vk_path: The key.
        settings_path: The circuit's settings.
        srs_path: The whole SRS.
        witness_path: ezkl's witness; written anew.

    Returns:
        What the proof must begin with.

    Raises:
        StageError: ezkl cannot commit to the input.
    """
    witness = json.loads(witness_path.read_text())
    lengths = input_lengths(settings_path.read_bytes())

    def points(elements: Sequence[str], length: int) -> bytes:
        found = backend.commitment(chunk.id, elements, vk_path, settings_path, srs_path)
        missing = column_count(length, chunk.arguments.logrows) - len(found) // POINT_BYTES
        if missing:
            # ezkl keeps room for a column more than it fills.
            found += missing * backend.commitment(
                chunk.id, [encode(0)], vk_path, settings_path, srs_path
            )
        return found

    transcript = _transcript(chunk, vk_sha256, leaves)
    first = points(witness["inputs"][0], lengths[0])
    seed, rho, sigma, tau = transcript.first(first)
    vector = weighted(read_weights(weights), sigma)
    # Products of activations alone have no weights, and no input for them.
    second = points([encode(v) for v in vector], len(vector)) if vector else b""
    found = Challenges(rho=rho, sigma=sigma, tau=tau, t=transcript.second(seed, second))
    value = value_at(vector, found.t)
    shown = [found.rho, found.sigma, found.tau, found.t]
    witness["inputs"][1:] = [[encode(v) for v in part] for part in (vector, shown) if part]
    witness["outputs"][-1] = [encode(v) for v in (*shown, 0, value)]
    witness["processed_outputs"]["poseidon_hash"][-1] = encode(leaf_hash(found, value))
    witness_path.write_text(json.dumps(witness))
    return first + second


def check(
    chunk: ChunkPlan, proof: ChunkProof, *, weights: bytes, vk_sha256: str, settings: bytes
) -> None:
    """Hold a proof that verified to the challenges that its own commitments determine.

    Args:
        chunk: The chunk, with weights outside its circuit.
        proof: Its proof, which `ezkl.verify` accepted.
        weights: The weights that the plan pins.
        vk_sha256: Digest of the key that it verified under.
        settings: The settings that it verified under.

    Raises:
        ProofRejectedError: Code "challenge": its last instance is not the one that its challenges,
            a zero identity and the pinned weights give.
    """
    *leaves, shown = proof.elements()
    products = read_weights(weights)
    length, *others = input_lengths(settings)
    depth = sum(len(w) for w in products)
    if others != [*([depth] if depth else []), COUNT]:
        raise _rejected(chunk, "its circuit does not take the weights that the plan pins")
    first = POINT_BYTES * column_count(length, chunk.arguments.logrows)
    second = first
    if depth:
        second += POINT_BYTES * column_count(depth, chunk.arguments.logrows)
    body = bytes.fromhex(proof.proof)
    if len(body) < second:
        raise _rejected(chunk, "its proof is too short for its commitments")
    transcript = _transcript(chunk, vk_sha256, leaves)
    found = transcript.challenges(body[:first], body[first:second])
    value = value_at(weighted(products, found.sigma), found.t)
    if shown != leaf_hash(found, value):
        raise _rejected(
            chunk, "it answers another challenge, or the products are not those of the weights"
        )


def input_lengths(settings: bytes) -> tuple[int, ...]:
    """Elements of every input that a circuit commits to, from its canonical settings."""
    return tuple(json.loads(settings)["module_sizes"]["polycommit"])


def _rejected(chunk: ChunkPlan, why: str) -> ProofRejectedError:
    return ProofRejectedError(
        f"{chunk.id}: its products are not shown to be right: {why}",
        subject=chunk.id,
        code="challenge",
    )


def _transcript(chunk: ChunkPlan, vk_sha256: str, leaves: Sequence[int]) -> Transcript:
    # The chunk's plan pins model, settings, arguments and weights; with the key that is all.
    circuit = bytes.fromhex(chunk.digest()) + bytes.fromhex(vk_sha256)
    return Transcript(circuit=circuit, instances=tuple(leaves))

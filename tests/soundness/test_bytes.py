"""Bytes of every object that a verifier reads, flipped one at a time."""

from __future__ import annotations

import contextlib

import pytest

from zkml_ray import names
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.errors import ProofRejectedError
from zkml_ray.verifying.trust import TrustRoot

from .attacker import Attacker
from .tally import TALLY

pytestmark = pytest.mark.ray

PER_OBJECT = 40
PER_PROOF = 150


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << (position % 8)
    return bytes(changed)


def positions(data: bytes, count: int) -> range:
    return range(0, len(data), max(1, len(data) // count))


def read_names(attacker: Attacker) -> list[str]:
    found = [names.SEALED_PLAN]
    for chunk in attacker.run.plan.chunks:
        found += [
            names.settings(chunk.id),
            names.verifying_key(chunk.id),
            names.proof(chunk.id),
            names.verifier_srs(chunk.arguments.logrows),
        ]
    return sorted(set(found))


def test_bytes_flipped_in_the_store_are_refused(attacker: Attacker) -> None:
    for name in read_names(attacker):
        data = attacker.read(name)
        for position in positions(data, PER_OBJECT):
            attacker.change_bytes(name, flipped(data, position))
            TALLY.refused_with(attacker.verify, "artifact-digest", case=f"{name} at {position}")
        attacker.reset()


def test_bytes_of_the_whole_srs_flipped_are_refused_by_the_model(
    attacker: Attacker, mlp_model: LoadedModel
) -> None:
    (pin,) = attacker.document(names.SEALED_PLAN)["srs"]
    name = names.srs(pin["logrows"])
    data = attacker.read(name)
    for position in positions(data, PER_OBJECT):
        attacker.change_bytes(name, flipped(data, position))
        TALLY.refused_with(
            lambda: attacker.verify(TrustRoot(model=mlp_model)),
            "artifact-digest",
            case=f"{name} at {position}",
        )


@pytest.mark.parametrize("change", ["appended", "cut"])
def test_lengths_changed_in_the_store_are_refused(attacker: Attacker, change: str) -> None:
    for name in read_names(attacker):
        data = attacker.read(name)
        attacker.change_bytes(name, data + b"\0" if change == "appended" else data[:-1])
        TALLY.refused_with(attacker.verify, "artifact-size", case=f"{name} {change}")
        attacker.reset()


def test_bytes_flipped_with_a_fitting_reference_are_refused(attacker: Attacker) -> None:
    for name in read_names(attacker):
        if name == names.SEALED_PLAN or name.startswith("proofs/"):
            continue
        data = attacker.read(name)
        for position in positions(data, PER_OBJECT):
            attacker.replace(name, flipped(data, position))
            TALLY.refused_with(attacker.verify, "artifact-pin", case=f"{name} at {position}")
        attacker.reset()


def test_bytes_of_proofs_flipped_are_refused(attacker: Attacker) -> None:
    for chunk in attacker.run.plan.chunks:
        name = names.proof(chunk.id)
        document = attacker.document(name)
        body = bytes.fromhex(document["proof"])
        for position in positions(body, PER_PROOF):
            attacker.replace_document(name, {**document, "proof": flipped(body, position).hex()})
            TALLY.refused_with(attacker.verify, "proof-rejected", case=f"{name} at {position}")
        attacker.reset()


@pytest.mark.slow
def test_every_byte_of_every_proof_flipped_is_refused(attacker: Attacker) -> None:
    for chunk in attacker.run.plan.chunks:
        name = names.proof(chunk.id)
        document = attacker.document(name)
        body = bytes.fromhex(document["proof"])
        for position in range(len(body)):
            attacker.replace_document(name, {**document, "proof": flipped(body, position).hex()})
            TALLY.refused_with(attacker.verify, "proof-rejected", case=f"{name} at {position}")
        attacker.reset()


def test_damaged_key_is_refused_even_where_a_trusted_plan_pins_it(attacker: Attacker) -> None:
    """ezkl meets the damaged key: it must refuse the proof, not end the process.

    A key begins with commitments (their number is in its header) and ends with packed selectors,
    some bits of which verification does not depend on: a key is identified by its digest, never by
    what it accepts.
    """
    name = names.verifying_key("chunk-000")
    data = attacker.read(name)
    sealed = attacker.document(names.SEALED_PLAN)
    honest = attacker.verify()
    commitments_end = 7 + 32 * int.from_bytes(data[3:7], "little")
    assert 300 < commitments_end < len(data) / 2
    for position in positions(data, PER_OBJECT):
        damaged = flipped(data, position)
        sealed["verifying_keys"][0]["sha256"] = sha256_hex(damaged)
        trust = TrustRoot(plan_digest=attacker.replace_plan(sealed))
        attacker.replace(name, damaged)
        if position < commitments_end:
            TALLY.refused_with(
                lambda trust=trust: attacker.verify(trust),
                "proof-rejected",
                case=f"{name} at {position}",
            )
        else:
            with contextlib.suppress(ProofRejectedError):
                assert attacker.verify(trust).revealed == honest.revealed
        attacker.reset()

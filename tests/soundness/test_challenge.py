"""Forgeries of products that a challenge checks, with the honest proving key and real proofs.

An attacker chooses everything that the circuit is given: results, remainders, w', challenges, and
what the last leaf claims. `ezkl.verify` refuses what the circuit does not compute,
`challenge.check` what it was not to be asked; each alone accepts some forgery here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ezkl
import numpy as np
import onnx
import pytest

from tests.unit.chunking.hinted_cases import Case, dense, node
from tests.unit.chunking.hinted_circuit import (
    NUMBERS,
    HintedChunk,
    answered,
    hinted_chunk,
    saved,
)
from zkml_ray.canonical import sha256_hex
from zkml_ray.chunking.hinted.recipe import advice_of, products_of
from zkml_ray.circuits import backend, challenge
from zkml_ray.commitments.challenge import (
    POINT_BYTES,
    Challenges,
    Transcript,
    value_at,
    weighted,
    write_weights,
)
from zkml_ray.commitments.field import MODULUS, decode, encode
from zkml_ray.errors import ProofRejectedError
from zkml_ray.schema.plan import ChunkPlan
from zkml_ray.schema.proof import ChunkProof

ROWS, DEPTH, CHANNELS = 3, 32, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a prover puts into a witness."""

    x0: Sequence[int]
    weighted: Sequence[int]
    challenges: Challenges
    error: int
    value: int


class Prover:
    """A chunk with its keys, in an attacker's hands."""

    def __init__(self, folder: Path) -> None:
        case = Case(
            nodes=[node("MatMul", "x", "w")],
            x=[ROWS, DEPTH],
            y=[ROWS, CHANNELS],
            constants=[dense(DEPTH, CHANNELS)],
        )
        self.chunk: HintedChunk = hinted_chunk(case.proto(), NUMBERS, challenge=True, salted=False)
        products = products_of(self.chunk.data)
        assert products is not None
        self.products = products
        self.weights = write_weights(products)
        self._folder = folder
        path = saved(self.chunk, folder)
        self._settings = folder / "settings.json"
        self.settings = backend.derive_settings(path, self.chunk.arguments()).data
        self._settings.write_bytes(self.settings)
        self._compiled, self._srs = folder / "circuit", folder / "srs"
        self._vk, self._pk = folder / "vk", folder / "pk"
        backend.compile_circuit(path, self._settings, self._compiled)
        backend.generate_insecure_srs(self._srs, NUMBERS.logrows)
        backend.setup_keys(self._compiled, self._srs, self._vk, self._pk)
        self.vk_sha256 = sha256_hex(self._vk.read_bytes())
        self.plan = ChunkPlan(
            id="chunk-000",
            nodes=("m",),
            operators=("MatMul",),
            inputs=("x",),
            outputs=("y",),
            arguments=self.chunk.arguments(),
            onnx_sha256=sha256_hex(self.chunk.data),
            settings_sha256=sha256_hex(self.settings),
            weights_sha256=sha256_hex(self.weights),
            num_rows=1,
            poseidon_rows=1,
        )
        self.depth = sum(len(w) for w in products)
        self._leaves: dict[tuple[int, ...], list[int]] = {}

    def input(self, seed: int = 0) -> list[int]:
        """An honest x0, blinders drawn anew."""
        draw = np.random.default_rng(seed)
        values = draw.integers(-(1 << NUMBERS.scale), 1 << NUMBERS.scale, (ROWS, DEPTH))
        return self.chunk.advice({"x": values})

    def raised(self, x0: Sequence[int]) -> list[int]:
        """One result a quantum higher, its equation not mended."""
        advice = advice_of(onnx.ModelProto.FromString(self.chunk.data))
        # The incoming boundary's higher digits come first.
        first = ROWS * DEPTH if NUMBERS.digits == 2 else 0
        place = int(advice.looked_up()[advice.hints.places][first])
        return [*x0[:place], x0[place] + 1, *x0[place + 1 :]]

    def chunk_values(self, x0: Sequence[int]) -> list[int]:
        """The incoming boundary's values in an x0."""
        advice = advice_of(onnx.ModelProto.FromString(self.chunk.data))
        return [x0[place] for place in advice.given()[: ROWS * DEPTH].tolist()]

    def error(self, asked: Asked) -> int:
        """E of what is asked, but for w', which is W sigma."""
        return answered(self.chunk, list(asked.x0), asked.challenges, end=-1)[-1][-2]

    def points(self, elements: Sequence[int]) -> bytes:
        """Commitments to an input's columns."""
        return backend.commitment(
            "chunk-000", [encode(v) for v in elements], self._vk, self._settings, self._srs
        )

    def transcript(self, leaves: Sequence[int]) -> Transcript:
        """The honest one."""
        circuit = bytes.fromhex(self.plan.digest()) + bytes.fromhex(self.vk_sha256)
        return Transcript(circuit=circuit, instances=tuple(leaves))

    def leaves(self, x0: Sequence[int]) -> list[int]:
        """Leaf hashes that an x0 gives."""
        key = tuple(x0)
        if key not in self._leaves:
            self._leaves[key] = self._forward(x0).hashes[:-1]
        return self._leaves[key]

    def _forward(self, x0: Sequence[int]) -> backend.CircuitWitness:
        zeros = [[0] * self.depth, [0] * 4]
        return backend.generate_witness(
            "chunk-000", [list(x0), *zeros], self._compiled, self._folder / "witness.json"
        )

    def honest(self, x0: Sequence[int], vector: Sequence[int] | None = None) -> Asked:
        """What the transcript asks for, given x0 and, perhaps, another w'."""
        transcript = self.transcript(self.leaves(x0))
        seed, rho, sigma, tau = transcript.first(self.points(x0))
        expected = weighted(self.products, sigma)
        vector = expected if vector is None else vector
        t = transcript.second(seed, self.points(vector))
        return Asked(
            x0=x0,
            weighted=vector,
            challenges=Challenges(rho=rho, sigma=sigma, tau=tau, t=t),
            error=0,
            value=value_at(vector, t),
        )

    def prove(self, asked: Asked) -> ChunkProof:
        """A proof of whatever is asked; ezkl makes it, true or not."""
        path = self._folder / "witness.json"
        self._forward(asked.x0)
        witness = json.loads(path.read_text())
        c = asked.challenges
        shown = [c.rho, c.sigma, c.tau, c.t]
        leaf = [*shown, asked.error, asked.value]
        witness["inputs"][1] = [encode(v) for v in asked.weighted]
        witness["inputs"][2] = [encode(v) for v in shown]
        witness["outputs"][-1] = [encode(v) for v in leaf]
        witness["processed_outputs"]["poseidon_hash"][-1] = encode(hash_of(leaf))
        path.write_text(json.dumps(witness))
        return backend.prove("chunk-000", path, self._compiled, self._pk, self._srs)

    def verdict(self, proof: ChunkProof, **other: object) -> tuple[bool, bool]:
        """Whether ezkl accepts it, and whether the challenges are answered."""
        accepted = backend.verify_proof(proof, self._settings, self._vk, self._srs)
        fields = {
            "chunk": self.plan,
            "weights": self.weights,
            "vk_sha256": self.vk_sha256,
            "settings": self.settings,
        } | other
        chunk = fields.pop("chunk")
        try:
            challenge.check(chunk, proof, **fields)  # type: ignore[arg-type]
        except ProofRejectedError as error:
            assert error.code == "challenge"
            return accepted, False
        return accepted, True


def hash_of(leaf: Sequence[int]) -> int:
    """A leaf's hash, whatever it claims."""
    return decode(ezkl.poseidon_hash([encode(v) for v in leaf])[0])


@pytest.fixture(scope="module")
def prover(tmp_path_factory: pytest.TempPathFactory) -> Prover:
    """One chunk for all forgeries."""
    return Prover(tmp_path_factory.mktemp("challenge"))


@pytest.fixture(scope="module")
def proof(prover: Prover) -> ChunkProof:
    """An honest proof."""
    return prover.prove(prover.honest(prover.input()))


def test_honest_proof_is_accepted(prover: Prover, proof: ChunkProof) -> None:
    assert prover.verdict(proof) == (True, True)


def test_wrong_result_is_refused_whatever_the_leaf_claims(prover: Prover) -> None:
    asked = prover.honest(prover.raised(prover.input()))
    error = prover.error(asked)
    assert error != 0
    assert prover.verdict(prover.prove(asked)) == (False, True)
    told = replace(asked, error=error)
    assert prover.verdict(prover.prove(told)) == (True, False)


def test_weighted_sums_fitted_to_a_wrong_result_are_refused(prover: Prover) -> None:
    asked = prover.honest(prover.raised(prover.input()))
    error, rho = prover.error(asked), asked.challenges.rho
    # E is linear in w'_0: by (rho^T A)_0, whose factor in E is read off by changing w'_0.
    values = np.asarray(prover.chunk_values(asked.x0)).reshape(ROWS, DEPTH)
    folded = sum(int(v) * pow(rho, i, MODULUS) for i, v in enumerate(values[:, 0], start=1))
    slope = folded * asked.challenges.tau % MODULUS
    fitted = [(asked.weighted[0] - error * pow(slope, -1, MODULUS)) % MODULUS, *asked.weighted[1:]]
    again = prover.honest(asked.x0, fitted)
    assert again.challenges.rho == rho
    honest_value = value_at(asked.weighted, again.challenges.t)
    assert prover.verdict(prover.prove(again)) == (True, False)
    assert prover.verdict(prover.prove(replace(again, value=honest_value))) == (False, True)


def test_weighted_sums_of_another_challenge_are_refused(prover: Prover) -> None:
    x0 = prover.input()
    sigma = prover.honest(x0).challenges.sigma
    asked = prover.honest(x0, weighted(prover.products, (sigma + 1) % MODULUS))
    accepted = prover.verdict(prover.prove(asked))
    assert accepted == (False, False)


@pytest.mark.parametrize("wrong", [False, True])
def test_challenges_of_the_provers_choice_are_refused(prover: Prover, wrong: bool) -> None:
    x0 = prover.raised(prover.input()) if wrong else prover.input()
    zero = Challenges(rho=0, sigma=0, tau=0, t=0)
    asked = Asked(x0=x0, weighted=[0] * prover.depth, challenges=zero, error=0, value=0)
    assert prover.verdict(prover.prove(asked)) == (True, False)


def test_challenges_of_an_earlier_attempt_are_refused(prover: Prover) -> None:
    earlier, now = prover.honest(prover.input()), prover.honest(prover.input())
    assert prover.leaves(earlier.x0) == prover.leaves(now.x0)
    replayed = replace(earlier, x0=now.x0)
    assert prover.verdict(prover.prove(replayed)) == (True, False)


def test_challenges_of_another_input_are_refused(prover: Prover) -> None:
    other = prover.honest(prover.input(seed=1))
    assert prover.verdict(prover.prove(replace(other, x0=prover.input()))) == (True, False)


def test_proof_is_of_its_chunk_key_and_weights_alone(prover: Prover, proof: ChunkProof) -> None:
    for field, other in (
        ("id", "chunk-001"),
        ("onnx_sha256", "0" * 64),
        ("settings_sha256", "0" * 64),
        ("weights_sha256", "0" * 64),
        ("inputs", ("z",)),
    ):
        chunk = prover.plan.model_copy(update={field: other})
        assert prover.verdict(proof, chunk=chunk) == (True, False), field
    assert prover.verdict(proof, vk_sha256="0" * 64) == (True, False)
    draw = np.random.default_rng(4)
    for _ in range(5):
        changed = [w.copy() for w in prover.products]
        changed[0][draw.integers(DEPTH), draw.integers(CHANNELS)] += draw.choice([-1, 1])
        assert prover.verdict(proof, weights=write_weights(changed)) == (True, False)
    for weights in (prover.products[0][:-1], prover.products[0][:, :-1]):
        assert prover.verdict(proof, weights=write_weights([weights])) == (True, False)


def test_other_lengths_of_inputs_are_other_commitments(prover: Prover, proof: ChunkProof) -> None:
    document = json.loads(prover.settings)
    first, second, third = document["module_sizes"]["polycommit"]
    rows = (1 << NUMBERS.logrows) - challenge.UNUSABLE_ROWS
    for lengths in (
        [first - rows, second, third],
        [first + rows, second, third],
        [first, second + 1, third],
        [first, second, third + 1],
        [first, third],
        [first, third, second],
    ):
        document["module_sizes"]["polycommit"] = lengths
        settings = json.dumps(document).encode()
        assert prover.verdict(proof, settings=settings) == (True, False), lengths


def test_moved_bytes_are_refused(prover: Prover, proof: ChunkProof) -> None:
    body = bytes.fromhex(proof.proof)
    columns = challenge.column_count(len(prover.input()), NUMBERS.logrows)
    points = [body[i : i + POINT_BYTES] for i in range(0, POINT_BYTES * (columns + 1), POINT_BYTES)]
    rest = body[POINT_BYTES * (columns + 1) :]
    for order in ([*points[1:], points[0]], [*points[:-2], points[-1], points[-2]]):
        moved = proof.model_copy(update={"proof": (b"".join(order) + rest).hex()})
        assert prover.verdict(moved) == (False, False)
    short = proof.model_copy(update={"proof": body[: POINT_BYTES * columns].hex()})
    assert prover.verdict(short) == (False, False)
    swapped = proof.model_copy(update={"instances": proof.instances[::-1]})
    assert prover.verdict(swapped) == (False, False)

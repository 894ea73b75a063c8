"""Make `poseidon_bn254_t2.json` with the PyPI package poseidon-hash, independent of ezkl and halo2.

From the package: the Grain LFSR, the field arithmetic (galois) and the permutation. From here: the
matrix's derivation from the LFSR, which the package lacks, and the sponge. Nothing is read from
ezkl or halo2: the constants are derived from (prime field, x^alpha, 254 bits, t, R_F, R_P) alone.

Run as README.md says, with the versions of requirements-oracle.txt:

    python generate_poseidon_vectors.py > poseidon_bn254_t2.json
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator

from poseidon import Poseidon  # type: ignore[import-not-found]
from poseidon.round_constants import (  # type: ignore[import-not-found]
    calc_next_bits,
    calc_round_constants,
    init_state_for_grain,
)

MODULUS = 0x30644E72E131A029B85045B68181585D2833E84879B9709143E1F593F0000001
WIDTH, FULL_ROUNDS, PARTIAL_ROUNDS, ALPHA, FIELD_BITS = 2, 8, 56, 5, 254
CAPACITY = 1 << 64
LENGTHS = range(1, 65)

# The reference script writes 0 into the LFSR's S-box bits for every x^alpha with alpha > 0. The
# package follows Filecoin, which writes 0 for alpha = 3 and 1 for alpha = 5. So the package is
# asked for alpha = 3 where, and only where, it seeds the LFSR.
GRAIN_ALPHA = 3


def grain_integers() -> Iterator[int]:
    """The LFSR's 254-bit integers, in order, without end."""
    state = init_state_for_grain(
        GRAIN_ALPHA, MODULUS, FIELD_BITS, WIDTH, FULL_ROUNDS, PARTIAL_ROUNDS
    )
    for _ in range(160):
        bit = state[62] ^ state[51] ^ state[38] ^ state[23] ^ state[13] ^ state[0]
        state = [*state[1:], bit]
    while True:
        state, bits = calc_next_bits(state, FIELD_BITS)
        yield int("".join(map(str, bits)), 2)


def constants() -> tuple[list[int], list[list[int]]]:
    """Round constants, and the Cauchy matrix 1 / (x_i + y_j) from the integers after them."""
    stream = grain_integers()
    count = WIDTH * (FULL_ROUNDS + PARTIAL_ROUNDS)
    rounds: list[int] = []
    while len(rounds) < count:
        candidate = next(stream)
        if candidate < MODULUS:
            rounds.append(candidate)
    packaged = calc_round_constants(
        WIDTH, FULL_ROUNDS, PARTIAL_ROUNDS, MODULUS, int, GRAIN_ALPHA, FIELD_BITS
    )
    if rounds != packaged:
        sys.exit("the package's round constants differ from its own LFSR's stream")
    points = [next(stream) % MODULUS for _ in range(2 * WIDTH)]
    if len(set(points)) != len(points):
        sys.exit("the LFSR repeated a point of the matrix: the reference would draw again")
    xs, ys = points[:WIDTH], points[WIDTH:]
    return rounds, [[pow(x + y, -1, MODULUS) for y in ys] for x in xs]


def sponge(permutation: Poseidon, elements: list[int]) -> int:
    """Rate 1: add each element to word 0, permute; the state starts as [0, 2^64]; no padding."""
    rate, capacity = 0, CAPACITY
    for element in elements:
        permutation.run_hash([(rate + element) % MODULUS, capacity])
        rate, capacity = (int(word) for word in permutation.state)
    return rate


def text(element: int) -> str:
    return element.to_bytes(32, "little").hex()


def main() -> None:
    rounds, matrix = constants()
    with contextlib.redirect_stdout(sys.stderr):
        permutation = Poseidon(
            MODULUS,
            128,
            ALPHA,
            1,
            WIDTH,
            full_round=FULL_ROUNDS,
            partial_round=PARTIAL_ROUNDS,
            mds_matrix=[[hex(entry) for entry in row] for row in matrix],
            rc_list=[hex(constant) for constant in rounds],
            prime_bit_len=FIELD_BITS,
        )
    pool = [
        int.from_bytes(hashlib.sha256(f"zkml_ray/vectors/poseidon/{i}".encode()).digest(), "big")
        % MODULUS
        for i in range(len(LENGTHS))
    ]
    edges = {
        "one zero": [0],
        "two zeros": [0, 0],
        "one": [1],
        "minus one": [MODULUS - 1],
        "largest negative and positive": [MODULUS // 2 + 1, MODULUS // 2],
        "zero, one, two": [0, 1, 2],
        "two, one, zero": [2, 1, 0],
    }
    document = {
        "instance": {
            "field": "BN254 scalar field",
            "modulus": hex(MODULUS),
            "width": WIDTH,
            "rate": 1,
            "full_rounds": FULL_ROUNDS,
            "partial_rounds": PARTIAL_ROUNDS,
            "alpha": ALPHA,
            "initial_state": [text(0), text(CAPACITY)],
            "padding": "none",
        },
        "encoding": "32 bytes, little-endian, hexadecimal",
        "round_constants_sha256": hashlib.sha256("".join(map(text, rounds)).encode()).hexdigest(),
        "mds": [[text(entry) for entry in row] for row in matrix],
        "pool": [text(element) for element in pool],
        "suffixes": {
            "description": "hash of the last n elements of the pool, by n",
            "hashes": {str(n): text(sponge(permutation, pool[-n:])) for n in LENGTHS},
        },
        "edges": [
            {
                "name": name,
                "input": [text(element) for element in elements],
                "hash": text(sponge(permutation, elements)),
            }
            for name, elements in edges.items()
        ],
    }
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

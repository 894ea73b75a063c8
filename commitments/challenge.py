"""Challenges of a proof, and what they make of weights that stand outside its circuit.

A circuit whose products are checked by a challenge commits to three inputs
(`chunking.hinted.challenge`). A proof begins with the commitments to their columns: 64 bytes a
column, input by input. From these very bytes the challenges follow, for prover and verifier alike:

    h0 = H(tag, circuit, leaf instances, points of the first input)      -> rho, sigma, tau
    h1 = H(tag, h0, points of the second)                                -> t

with H = SHA-512 over length-prefixed parts, reduced modulo the field's order (bias below 2^-250).

The weights' part of the identity is computed from the integers W that the plan pins: w' = W sigma,
and V = sum t^k w'_k, modulo the field's order, by limbs whose products float64 holds exactly.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from zkml_ray.commitments.field import ELEMENT_BYTES, MODULUS
from zkml_ray.commitments.poseidon import hash_elements
from zkml_ray.errors import FieldRangeError

POINT_BYTES: Final = 2 * ELEMENT_BYTES
"""A commitment to a column, in a proof: x, then y."""

COUNT: Final = 4
"""rho, sigma, tau and t."""

WEIGHT_BITS: Final = 24
"""Magnitudes of weights stay below 2^24, as chunk models hold them."""

_EXACT_BITS: Final = 53
_TAG: Final = b"zkml_ray/challenge/1"
_MAGIC: Final = b"zkml_ray/weights/1\n"

Weights = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenges:
    """What a proof's commitments determine."""

    rho: int
    sigma: int
    tau: int
    t: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The challenges of one circuit.

    Attributes:
        circuit: Digest of all that defines the circuit, its verifying key included.
        instances: The proof's leaf hashes, the challenges' own left out.
    """

    circuit: bytes
    instances: Sequence[int]

    def first(self, points: bytes) -> tuple[bytes, int, int, int]:
        """(seed of `second`, rho, sigma, tau), from the points of the first input."""
        shown = b"".join(v.to_bytes(ELEMENT_BYTES, "little") for v in self.instances)
        seed = _digest(self.circuit, shown, points)
        rho, sigma, tau = (_element(seed, name) for name in (b"rho", b"sigma", b"tau"))
        return seed, rho, sigma, tau

    def second(self, seed: bytes, points: bytes) -> int:
        """t, from the points of the second input."""
        return _element(_digest(seed, points), b"t")

    def challenges(self, first: bytes, second: bytes) -> Challenges:
        """All challenges, from the points of both inputs."""
        seed, rho, sigma, tau = self.first(first)
        return Challenges(rho=rho, sigma=sigma, tau=tau, t=self.second(seed, second))


def _digest(*parts: bytes) -> bytes:
    found = hashlib.sha512(_TAG)
    for part in parts:
        found.update(struct.pack("<Q", len(part)))
        found.update(part)
    return found.digest()


def _element(seed: bytes, name: bytes) -> int:
    return int.from_bytes(_digest(seed, name), "little") % MODULUS


def weighted(products: Sequence[Weights], sigma: int) -> list[int]:
    """W' of every product, one after the other: w'_k = sum over j from 1 of W_kj sigma^j.

    Args:
        products: Whole numbers below 2^24 in magnitude, [K, N] each.
        sigma: The challenge.
    """
    found: list[int] = []
    most = max((w.shape[1] for w in products), default=0)
    powers = _powers(sigma, most)
    for weights in products:
        channels = weights.shape[1]
        bits = _EXACT_BITS - WEIGHT_BITS - channels.bit_length()
        mask, count = (1 << bits) - 1, -(-MODULUS.bit_length() // bits)
        limbs = np.array(
            [[(p >> (bits * i)) & mask for i in range(count)] for p in powers[:channels]],
            dtype=np.float64,
        )
        # |W| < 2^24, limbs < 2^bits, N of them: every sum is below 2^53, so exact.
        sums = np.rint(weights.astype(np.float64) @ limbs).astype(np.int64).tolist()
        found += [sum(v << (bits * i) for i, v in enumerate(row)) % MODULUS for row in sums]
    return found


def value_at(vector: Sequence[int], t: int) -> int:
    """V = sum over k from 1 of t^k w'_k."""
    total = 0
    for element in reversed(vector):
        total = (total + element) * t % MODULUS
    return total


def leaf_hash(challenges: Challenges, value: int) -> int:
    """The instance that tells that the identity holds, E = 0, and what w' is worth at t."""
    c = challenges
    return hash_elements([c.rho, c.sigma, c.tau, c.t, 0, value])


def write_weights(products: Sequence[Weights]) -> bytes:
    """The products' weights as the plan pins them: sizes and little-endian 32-bit integers."""
    parts = [_MAGIC, struct.pack("<I", len(products))]
    for weights in products:
        parts.append(struct.pack("<II", *weights.shape))
        parts.append(weights.astype("<i4").tobytes())
    return b"".join(parts)


def read_weights(data: bytes) -> list[Weights]:
    """The weights of `write_weights`.

    Raises:
        FieldRangeError: The bytes are not of that form.
    """
    products: list[Weights] = []
    start = len(_MAGIC) + 4
    if not data.startswith(_MAGIC) or len(data) < start:
        raise FieldRangeError("weights of products: not a file of them")
    (count,) = struct.unpack_from("<I", data, len(_MAGIC))
    for _ in range(count):
        if len(data) < start + 8:
            raise FieldRangeError("weights of products: the file ends early")
        rows, channels = struct.unpack_from("<II", data, start)
        start += 8
        size = 4 * rows * channels
        if not rows or not channels or len(data) < start + size:
            raise FieldRangeError("weights of products: the file ends early")
        found = np.frombuffer(data, dtype="<i4", count=rows * channels, offset=start)
        if np.abs(found.astype(np.int64)).max() >= 1 << WEIGHT_BITS:
            raise FieldRangeError("weights of products: one is beyond 2^24")
        products.append(found.astype(np.int64).reshape(rows, channels))
        start += size
    if start != len(data):
        raise FieldRangeError("weights of products: bytes follow them")
    return products


def _powers(base: int, count: int) -> list[int]:
    found, power = [], 1
    for _ in range(count):
        power = power * base % MODULUS
        found.append(power)
    return found

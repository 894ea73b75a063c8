"""Challenges follow from every byte they should, and weights are combined exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkml_ray.commitments.challenge import (
    WEIGHT_BITS,
    Challenges,
    Transcript,
    leaf_hash,
    read_weights,
    value_at,
    weighted,
    write_weights,
)
from zkml_ray.commitments.field import MODULUS
from zkml_ray.errors import FieldRangeError

BASE = {"circuit": b"c" * 64, "instances": (1, 2), "first": b"x" * 64, "second": b"y" * 128}
OTHERS = {
    "circuit": [b"c" * 63 + b"d", b"c" * 63, b"c" * 65],
    "instances": [(2, 1), (1,), (1, 2, 0), (1, 3)],
    "first": [b"x" * 63 + b"z", b"x" * 128, b""],
    "second": [b"y" * 127 + b"z", b"y" * 64, b""],
}


def challenges(**parts: object) -> Challenges:
    """Of the base, but for some parts."""
    found = {**BASE, **parts}
    transcript = Transcript(circuit=found["circuit"], instances=found["instances"])
    return transcript.challenges(found["first"], found["second"])


def test_challenges_are_elements_that_differ() -> None:
    found = challenges()
    values = [found.rho, found.sigma, found.tau, found.t]
    assert len(set(values)) == 4
    assert all(MODULUS >> 40 < value < MODULUS for value in values)
    assert found == challenges()


@pytest.mark.parametrize("part", ["circuit", "instances", "first"])
def test_whatever_is_fixed_first_changes_every_challenge(part: str) -> None:
    honest = challenges()
    for other in OTHERS[part]:
        found = challenges(**{part: other})
        assert not {found.rho, found.sigma, found.tau, found.t} & {
            honest.rho,
            honest.sigma,
            honest.tau,
            honest.t,
        }


def test_the_second_points_change_the_last_challenge_alone() -> None:
    honest = challenges()
    for other in OTHERS["second"]:
        found = challenges(second=other)
        assert (found.rho, found.sigma, found.tau) == (honest.rho, honest.sigma, honest.tau)
        assert found.t != honest.t


def test_no_byte_can_move_from_one_part_to_the_next() -> None:
    moved = Transcript(circuit=b"c" * 64 + (1).to_bytes(32, "little"), instances=(2,))
    assert moved.challenges(BASE["first"], BASE["second"]) != challenges()
    joined = challenges(first=BASE["first"] + BASE["second"][:64], second=BASE["second"][64:])
    assert joined.t != challenges().t


def exact(products: list[np.ndarray], sigma: int) -> list[int]:
    """w' over Python's integers."""
    return [
        sum(int(w) * pow(sigma, j, MODULUS) for j, w in enumerate(row, start=1)) % MODULUS
        for weights in products
        for row in weights
    ]


EDGE = (1 << WEIGHT_BITS) - 1


@pytest.mark.parametrize("channels", [1, 2, 31, 32, 1000, 4095, 4096, 10_000])
@pytest.mark.parametrize("kind", ["largest", "smallest", "random"])
def test_weights_are_combined_exactly(channels: int, kind: str) -> None:
    draw = np.random.default_rng(channels)
    random = draw.integers(-EDGE, EDGE + 1, (2, channels))
    weights = {"largest": np.full((1, channels), EDGE), "smallest": np.full((1, channels), -EDGE)}
    products = [weights.get(kind, random), random[:, : channels // 2 + 1]]
    for sigma in (MODULUS - 1, 1, 3**160 % MODULUS):
        assert weighted(products, sigma) == exact(products, sigma)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, MODULUS - 1), max_size=6), st.integers(0, MODULUS - 1))
def test_value_is_the_sum_of_powers(vector: list[int], t: int) -> None:
    expected = sum(v * pow(t, k, MODULUS) for k, v in enumerate(vector, start=1)) % MODULUS
    assert value_at(vector, t) == expected


def test_leaf_tells_every_part_and_claims_zero() -> None:
    base = Challenges(rho=1, sigma=2, tau=3, t=4)
    others = [
        Challenges(rho=5, sigma=2, tau=3, t=4),
        Challenges(rho=2, sigma=1, tau=3, t=4),
        Challenges(rho=1, sigma=2, tau=4, t=3),
    ]
    hashes = [leaf_hash(base, 7), leaf_hash(base, 8), *(leaf_hash(c, 7) for c in others)]
    assert len(set(hashes)) == len(hashes)


def test_weights_file_is_read_as_it_was_written() -> None:
    draw = np.random.default_rng(3)
    products = [draw.integers(-EDGE, EDGE + 1, shape) for shape in ((1, 1), (7, 3), (2, 300))]
    found = read_weights(write_weights(products))
    assert [w.tolist() for w in found] == [w.tolist() for w in products]
    assert read_weights(write_weights([])) == []


def test_any_other_bytes_are_no_weights_file() -> None:
    data = write_weights([np.asarray([[1, -2], [EDGE, -EDGE]])])
    for end in range(len(data)):
        with pytest.raises(FieldRangeError, match="weights of products"):
            read_weights(data[:end])
    for bad in (data + b"\0", b"x" + data[1:], data[:-4] + (EDGE + 1).to_bytes(4, "little")):
        with pytest.raises(FieldRangeError, match="weights of products"):
            read_weights(bad)
    # Every byte of sizes and weights means something.
    start = len(data) - 16 - 12
    for at, bit in itertools.product(range(start, len(data)), (0, 7)):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        try:
            found = read_weights(bytes(changed))
        except FieldRangeError:
            continue
        assert write_weights(found) == bytes(changed)

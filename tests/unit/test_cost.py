"""The cost model: columns as ezkl allocates them, prices that reproduce their measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkml_ray.config import parse_size
from zkml_ray.cost.fit import fit_prices, non_negative_least_squares
from zkml_ray.cost.geometry import Geometry, reduction_length
from zkml_ray.cost.load import MAX_COLUMN_BLOCKS, Load, block_count
from zkml_ray.cost.model import CostModel, price
from zkml_ray.cost.profiles import load_profile, save_profile, shipped_profile
from zkml_ray.cost.sizing import best_size
from zkml_ray.errors import ConfigError, ManifestError
from zkml_ray.schema.profile import Prices
from zkml_ray.stages.size import wider_digits


def load(cells: int, hash_rows: int = 400) -> Load:
    return Load(
        inner_columns=5,
        cells=cells,
        einsum_cells=0,
        freivalds=False,
        shuffle_cells=0,
        tables=0,
        range_checks=2,
        hash_rows=hash_rows,
        table_rows=128,
        instances=3,
    )


@given(st.integers(0, 100_000), st.integers(10, 20), st.integers(1, 8))
def test_blocks_hold_the_cells_and_no_block_is_needless(
    cells: int, logrows: int, columns: int
) -> None:
    blocks = block_count(cells, 1 << logrows, columns)
    room = ((1 << logrows) - 8) * columns
    assert cells < blocks * room
    assert blocks == 1 or cells + blocks >= (blocks - 1) * room


@pytest.mark.parametrize(
    ("equation", "sizes", "length"),
    [
        # The output m x n: n then m. Inputs: m away from mk, n away from kn, then k.
        ("mk,kn->mn", {"m": 3, "k": 4, "n": 5}, 15 + 3 + 12 + 20 + 4),
        ("ab,ab->ab", {"a": 1, "b": 4}, 4 + 4 + 4),
        ("k,k->", {"k": 7}, 7),
    ],
)
def test_reduction_lengths_follow_ezkls_planner(
    equation: str, sizes: dict[str, int], length: int
) -> None:
    assert reduction_length(equation, sizes) == length


@given(st.integers(0, 1 << 30))
@settings(deadline=None)
def test_non_negative_least_squares_recovers_exact_prices(seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix = generator.uniform(0.1, 1, size=(20, 6))
    truth = generator.uniform(0, 5, size=6) * (generator.random(6) < 0.7)
    found = non_negative_least_squares(matrix, matrix @ truth)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, truth, atol=1e-6)


def test_non_negative_least_squares_never_goes_below_zero() -> None:
    matrix = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    found = non_negative_least_squares(matrix, np.array([3.0, 2.0, 1.0]))
    np.testing.assert_allclose(found, [2.0, 0.0], atol=1e-9)


def test_prices_reproduce_the_costs_that_they_made() -> None:
    truth = Prices(
        fixed=0.1, row=1e-5, main=4e-5, block=0, batch=2e-5, einsum=0, table=0, shuffle=0, cell=0
    )
    geometries = [
        load(cells).geometry(logrows) for cells in (900, 9_000, 60_000) for logrows in (10, 11, 13)
    ]
    found = fit_prices([(geometry, price(geometry, truth)) for geometry in geometries])
    for geometry in geometries:
        assert price(geometry, found) == pytest.approx(price(geometry, truth), rel=1e-6)


@given(st.integers(100, 400_000), st.integers(100, 6_000), st.integers(120, 3_000))
@settings(deadline=None)
def test_best_size_keeps_within_memory_wherever_any_size_does(
    cells: int, hash_rows: int, mib: int
) -> None:
    model = CostModel(profile=shipped_profile())
    budget = mib << 20
    wanted = load(cells, hash_rows)
    sizes = list(wanted.geometries())
    best = best_size(wanted, model, budget)
    assert best is not None
    assert best.geometry in sizes
    fitting = [g for g in sizes if model.peak_bytes(g) <= budget]
    if fitting:
        assert best.peak_bytes <= budget
        assert best.seconds == min(model.prove_s(g) for g in fitting)
    else:
        assert best.peak_bytes == min(model.peak_bytes(g) for g in sizes)
    assert all(g.blocks <= MAX_COLUMN_BLOCKS for g in sizes)


def test_more_threads_shorten_all_but_the_serial_share() -> None:
    geometry = load(20_000).geometry(11)
    one, many = (CostModel(profile=shipped_profile(), threads=n) for n in (1, 1_000_000))
    share = shipped_profile().serial_share
    assert many.prove_s(geometry) == pytest.approx(share * one.prove_s(geometry), rel=1e-3)
    assert many.peak_bytes(geometry) == one.peak_bytes(geometry)


def test_profile_is_the_named_one_then_this_machines_then_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path))
    monkeypatch.delenv("ZKML_RAY_PROFILE", raising=False)
    assert load_profile() == shipped_profile()
    mine = shipped_profile().model_copy(update={"machine": "mine"})
    save_profile(mine)
    assert load_profile() == mine
    named = shipped_profile().model_copy(update={"machine": "named"})
    save_profile(named, tmp_path / "named.json")
    monkeypatch.setenv("ZKML_RAY_PROFILE", str(tmp_path / "named.json"))
    assert load_profile() == named
    assert load_profile(Path("shipped")) == shipped_profile()


def test_profile_that_is_missing_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such profile"):
        load_profile(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text('{"format": "zkml_ray/profile/1"}')
    with pytest.raises(ManifestError, match="profile"):
        load_profile(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 << 30), ("1.5 GiB", 3 << 29), ("900MiB", 900 << 20), ("64kib", 64 << 10)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size("--memory", text) == size


@pytest.mark.parametrize("text", ["", "2", "2GB", "-1GiB", "GiB", "0MiB", "1e3MiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--memory"):
        parse_size("--memory", text)


@pytest.mark.parametrize(
    ("base", "legs", "found"),
    [(128, 4, [(16384, 2)]), (16384, 2, []), (4, 6, [(16, 3), (64, 2), (4096, 1)])],
)
def test_wider_digits_admit_exactly_the_same_range(
    base: int, legs: int, found: list[tuple[int, int]]
) -> None:
    got = wider_digits(base, legs)
    assert all(wide**fewer == base**legs for wide, fewer in got)
    assert set(found) <= set(got)


def test_extended_domain_doubles_at_eight_columns() -> None:
    def extension(columns: int) -> int:
        return Geometry(
            logrows=10,
            inner_columns=columns,
            blocks=1,
            einsum_blocks=0,
            shuffle_blocks=0,
            tables=0,
            range_checks=2,
            cells=0,
            instances=1,
        ).extension

    assert [extension(columns) for columns in (1, 5, 7, 8)] == [8, 8, 8, 16]

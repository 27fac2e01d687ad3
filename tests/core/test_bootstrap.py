"""The compiled bootstrap against a plain one, its closed form, and the reference numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core import bootstrap as b
from cryptoalgo.core.errors import InputError
from cryptoalgo.core.statistics import max_drawdown, sharpe

MASK = 2**64 - 1


def lcg_normals(seed: int, n: int) -> np.ndarray:
    "The generator that the reference file is made with."
    x, u = seed, []
    for _ in range(12 * n):
        x = (1664525 * x + 1013904223) % 2**32
        u.append((x + 0.5) / 2**32)
    return np.array(u).reshape(n, 12).sum(1) - 6.0


def ar1(seed: int, n: int, phi: float) -> np.ndarray:
    y = lcg_normals(seed, n)
    for t in range(1, n):
        y[t] += phi * y[t - 1]
    return y


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def plain_indices(n, block, kind, seed, path):
    "The rows that one path draws, in plain integers."
    golden, rows = 0x9E3779B97F4A7C15, []
    state = (mix((seed + golden) & MASK) + path) & MASK
    state = mix(state)
    while len(rows) < n:
        state = (state + golden) & MASK
        start = (mix(state) >> 32) * n >> 32
        length = block
        if kind == "stationary":
            state = (state + golden) & MASK
            u = ((mix(state) >> 11) + 1) * 2.0**-53
            length = 1 + math.floor(math.log(u) / math.log1p(-1 / block)) if block > 1 else 1
        rows += [(start + k) % n for k in range(min(int(length), n - len(rows)))]
    return rows


def test_the_generator_of_the_reference(reference, close_to):
    e = reference("generator.check")
    z = lcg_normals(e["inputs"]["seed"], 3)
    assert close_to(z, e["expected"]["first_3_z"], 1e-10)


@pytest.mark.parametrize("name", ["ar0.5", "ar0.9", "iid"])
def test_optimal_block_length(reference, close_to, name):
    e = reference(f"optimal_block_length.{name}")
    i = e["inputs"]
    y = ar1(i["seed"], i["n"], i["phi"])
    assert close_to(y[:3], i["first3"], 1e-9)
    found = b.optimal_block_length(y)
    assert close_to(found.stationary, e["expected"]["stationary"], e["tolerance"])
    assert close_to(found.circular, e["expected"]["circular"], e["tolerance"])


@pytest.mark.parametrize("kind", ["stationary", "circular"])
def test_bootstrap_variance_of_mean(reference, close_to, kind):
    e = reference(f"bootstrap_variance_of_mean.{kind}")
    i = e["inputs"]
    block = i["block"] if kind == "circular" else 1 / i["p"]
    found = b.bootstrap_variance_of_mean(ar1(i["seed"], i["n"], i["phi"]), block, kind)
    assert close_to(found, e["expected"], e["tolerance"])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 120), st.floats(1, 30), st.sampled_from(["stationary", "circular"]),
    st.integers(0, 2**64 - 1), st.integers(0, 99),
)  # fmt: skip
def test_draws_are_those_of_a_plain_bootstrap(n, block, kind, seed, data_seed):
    block = min(block, n)
    block = float(int(block)) if kind == "circular" else block
    r = np.random.default_rng(data_seed).normal(0.001, 0.02, n)
    ratios = b.bootstrap_sharpe(r, block, 5, seed, kind)
    falls = b.bootstrap_drawdown(r, block, 5, seed, kind)
    for path in range(5):
        drawn = r[plain_indices(n, block, kind, seed, path)]
        want = sharpe(drawn)
        if np.isnan(want):
            assert ratios[path] == 0
        else:
            assert ratios[path] == pytest.approx(want, rel=1e-6, abs=1e-9)
        assert falls[path] == pytest.approx(max_drawdown(drawn), abs=1e-12)


def test_a_path_depends_on_seed_and_number_only():
    r = np.random.default_rng(0).normal(0, 1, 300)
    many = b.bootstrap_sharpe(r, 7, paths=500, seed=3)
    assert (b.bootstrap_sharpe(r, 7, paths=40, seed=3) == many[:40]).all()
    assert (b.bootstrap_sharpe(r, 7, paths=500, seed=4) != many).all()
    assert len(np.unique(many)) == 500


@pytest.mark.parametrize("kind", ["stationary", "circular"])
def test_spread_of_the_draws_agrees_with_the_closed_form(kind):
    "With a true ratio near 0 the Sharpe ratio's spread is the mean's, and that has a closed form."
    y = ar1(51, 2000, 0.5)
    y -= y.mean()
    want = b.bootstrap_variance_of_mean(y, 10, kind) / y.var()
    draws = b.bootstrap_sharpe(y, 10, paths=20_000, seed=1, kind=kind)
    assert 2000 * draws.var() == pytest.approx(want, rel=0.05)  # 4 standard errors of a variance over 20,000 draws


def test_an_interval_covers_as_often_as_it_says():
    covered = [
        (np.quantile(b.bootstrap_sharpe(r, 1, 500, seed), [0.05, 0.95]) - 0.1) @ [1, 0] <= 0
        and np.quantile(b.bootstrap_sharpe(r, 1, 500, seed), 0.95) >= 0.1
        for seed in range(400)
        for r in [np.random.default_rng(seed).normal(0.1, 1.0, 250)]
    ]
    assert 0.84 < np.mean(covered) < 0.95  # 90 % ± 4 standard errors


def test_days_without_trades_do_not_upset_it():
    mostly_flat = np.zeros(400)
    mostly_flat[::80] = [0.02, -0.01, 0.03, 0.01, -0.02]
    draws = b.bootstrap_sharpe(mostly_flat, 5, 2000)
    assert np.isfinite(draws).all() and np.abs(draws).max() < 1
    assert np.isnan(b.bootstrap_sharpe(np.zeros(50), 5, 10)).all()
    assert (b.bootstrap_drawdown(np.zeros(50), 5, 10) == 0).all()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda r: b.bootstrap_sharpe(r, 24), "block 24, 10000 paths, 10 values"),
        (lambda r: b.bootstrap_sharpe(r, 0.5), "1 <= block"),
        (lambda r: b.bootstrap_sharpe(r, 2.5, kind="circular"), "whole number"),
        (lambda r: b.bootstrap_sharpe(r, 2, kind="moving"), "kind 'moving'"),
        (lambda r: b.bootstrap_drawdown(r, 2, paths=0), "at least one path"),
        (lambda r: b.optimal_block_length(r), "at least 11"),
        (lambda r: b.bootstrap_sharpe(np.append(r, np.inf), 2), "value number 10 is inf"),
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(InputError, match=words):
        call(np.random.default_rng(0).normal(0, 1, 10))

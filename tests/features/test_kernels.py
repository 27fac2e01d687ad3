"""State updates against plain numpy on whole windows, from any start, with missing values in between."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cryptoalgo.features import kernels as K

values = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)), min_size=5, max_size=80).map(np.array)
many = settings(max_examples=60, deadline=None)


def fold(update, cells, args, x, start=0):
    "The answer of `update` at each of the bars start, start + 1, ... whose values are x."
    F = np.full(cells, np.nan)
    return np.array([update(F, 0, *args(start + t), value) for t, value in enumerate(x)])


@many
@given(values, st.integers(1, 12), st.integers(0, 30))
def test_windows_equal_their_definition_and_do_not_depend_on_where_they_began(x, w, start):
    frame = pd.Series(x).rolling(w)
    for update, expected in ((K.roll_max, frame.max()), (K.roll_min, frame.min())):
        got = fold(update, w + 1, lambda n: (w, n % w), x, start)
        assert np.array_equal(got[w - 1 :], expected[w - 1 :], equal_nan=True)
    sums = fold(K.roll_sum, w + 1, lambda n: (w, n % w), x, start)
    exact = np.array([np.sum(x[max(t - w + 1, 0) : t + 1]) for t in range(len(x))])
    assert np.allclose(sums[w - 1 :], exact[w - 1 :], rtol=0, atol=1e-15 * w * 1e6, equal_nan=True)
    later = fold(K.roll_sum, w + 1, lambda n: (w, n % w), x[3:], start + 3)
    assert np.array_equal(later[w - 1 :], sums[w + 2 :], equal_nan=True)


@many
@given(values, st.integers(2, 12), st.integers(0, 30))
def test_moments_equal_their_definition_and_lower_orders_have_the_same_bits(x, w, start):
    def args(n):
        return (w, n % w)
    full = fold(K.roll_moments, 4 * (w + 2), args, x, start)
    assert np.array_equal(fold(K.roll_var, 2 * (w + 2), args, x, start)[w - 1 :], full[w - 1 :, :2], equal_nan=True)
    assert np.array_equal(fold(K.roll_mean, w + 2, args, x, start)[w - 1 :], full[w - 1 :, 0], equal_nan=True)
    for t in range(w - 1, len(x)):
        window = x[t - w + 1 : t + 1]
        if np.isnan(window).any():
            assert np.isnan(full[t]).all()
            continue
        size = np.max(np.abs(window))
        dev = window - window.mean()
        assert np.isclose(full[t, 0], window.mean(), rtol=0, atol=1e-14 * size)
        for k in (2, 3, 4):
            atol = max(1e-12 * w * size**k, np.finfo(float).tiny)  # below the smallest normal number digits are lost
            assert np.isclose(full[t, k - 1], np.sum(dev**k), rtol=0, atol=atol)


@many
@given(st.floats(1e-3, 1e9), st.integers(2, 40))
def test_a_flat_window_has_its_value_as_mean_and_no_deviation_at_all(price, w):
    got = fold(K.roll_moments, 4 * (w + 2), lambda n: (w, n % w), np.full(3 * w, price))[w - 1 :]
    assert (got == [price, 0.0, 0.0, 0.0]).all()


def test_no_digits_are_lost_on_a_price_level():
    x = 1e8 + np.random.default_rng(0).normal(0, 1e-2, 400)
    m, m2, m3, m4 = fold(K.roll_moments, 4 * 74, lambda n: (72, n % 72), x)[-1]
    window = x[-72:] - 1e8
    assert m2 / 71 == pytest.approx(window.var(ddof=1), rel=1e-6)
    assert m3 / 72 / (m2 / 72) ** 1.5 == pytest.approx(stats.skew(window), abs=1e-5)
    assert m4 / 72 / (m2 / 72) ** 2 - 3 == pytest.approx(stats.kurtosis(window), abs=1e-5)


@pytest.mark.parametrize("alpha", [1 / 14, 2 / 27, 2 / 10, 0.5])
def test_anchored_recursion_needs_two_blocks_and_not_one_bar_less(alpha):
    B, x = K.block_bars(alpha), np.random.default_rng(1).normal(100, 1, 3000)
    def args(n):
        return (alpha, n % B == 0)
    whole = fold(K.smooth, 2, args, x)
    needed = 0
    for start in range(B + 1, 2 * B + 2):
        late = fold(K.smooth, 2, args, x[start:], start)
        differs = np.flatnonzero(late != whole[start:])
        needed = max(needed, differs.max(initial=-1) + 1)
    assert needed == 2 * B - 1
    classic = pd.Series(x).ewm(alpha=alpha, adjust=False).mean().to_numpy()
    assert np.abs(whole - classic)[2 * B :].max() < K.TAIL * 10
    assert (1 - alpha) ** B < K.TAIL <= (1 - alpha) ** (B / 2)


def test_anchored_recursion_heals_after_a_missing_value():
    x = np.ones(2000)
    x[777] = np.nan
    got = fold(K.smooth, 2, lambda n: (1 / 14, n % 256 == 0), x)
    assert np.flatnonzero(np.isnan(got[511:]))[[0, -1]].tolist() == [777 - 511, 1279 - 511]  # the block of the NaN and the one that is answered from it


@many
@given(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=1, max_size=60), st.integers(1, 6))
def test_streak_counts_runs_up_to_its_cap(conditions, cap):
    got = fold(K.streak, 1, lambda n: (float(cap),), conditions)
    run = 0
    for value, answer in zip(conditions, got):
        run = min(run + 1, cap) if value == 1 else 0
        assert np.isnan(answer) if np.isnan(value) else answer == run


@many
@given(st.lists(st.integers(-3, 3).map(float), min_size=3, max_size=60))
def test_rank_averages_ties_as_pandas_does(x):
    expected = pd.Series(x).rank(pct=True).iloc[-1]
    assert K.rank_percentile(np.array(x), 0, len(x)) == pytest.approx(expected)
    assert np.isnan(K.rank_percentile(np.array([np.nan, *x]), 0, len(x) + 1))


@many
@given(values, st.integers(0, 4), st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)))
def test_mean_deviation_is_what_plain_python_says(x, a, centre):
    window = [float(v) for v in x[a:]]
    if len(window) >= 2:
        expected = sum(abs(v - centre) for v in window) / len(window)
        assert K.mean_deviation(x, a, len(window), centre) == pytest.approx(expected, rel=1e-13, nan_ok=True)


@many
@given(values, st.integers(2, 12), st.integers(0, 30))
def test_cusum_equals_its_own_recursion_on_every_window(x, w, start):
    x = x / 1e6
    got = fold(K.roll_cusum, 3 * w + 3, lambda n: (w, n % w), x, start)
    for t in range(w - 1, len(x)):
        up = down = 0.0
        for value in x[t - w + 1 : t + 1]:
            up, down = np.maximum(up + value - 0.5, 0.0), np.maximum(down - value - 0.5, 0.0)
        assert np.isclose(got[t], up - down, atol=1e-12, equal_nan=True)


def test_nothing_known_gives_nothing_known():
    nan = np.nan
    unknown = [K.gt(nan, 1), K.gt(1, nan), K.ge(nan, nan), K.where(nan, 1, 2), K.divide(nan, 0, 7.0), K.divide(1, nan, 7.0),
               K.sign(nan), K.bigger(nan, 1), K.bigger(1, nan), K.smaller(1, nan), K.logarithm(0), K.logarithm(-1), K.root(-1),
               K.cell(np.inf), K.cell(-np.inf), K.cell(1e39)]
    assert np.isnan(unknown).all()
    assert (K.divide(0.0, 0.0, 7.0), K.where(1.0, 1.0, nan), K.cell(1e38), K.root(0.0)) == (7.0, 1.0, 1e38, 0.0)

"""Labels against a plain-Python oracle, against the book's numbers, and against the fault of measuring from close(t)."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import LabelParams
from cryptoalgo.features.labels import (
    bar_sigma,
    close_path_barriers,
    direction_vote,
    first_touch,
    forward_return,
    make_labels,
    triple_barrier,
)

HOUR = 3_600_000
PRICES = ["open", "high", "low", "close"]


def market(n=120, seed=0, gap=0.003, filled=0.03, hole=0.02):
    "Random bars with gaps at the open, bars that were filled in, and holes at which the index jumps."
    rng = np.random.default_rng(seed)
    is_filled = rng.random(n) < filled
    is_filled[0] = False
    o, h, l, c = np.empty((4, n))
    last = 100.0
    for i in range(n):
        if is_filled[i]:
            o[i] = h[i] = l[i] = c[i] = last
            continue
        o[i] = last * (1 + rng.normal(0, gap))
        c[i] = last = o[i] * math.exp(rng.normal(0, 0.01))
        h[i] = max(o[i], c[i]) * (1 + rng.uniform(0, 0.01))
        l[i] = min(o[i], c[i]) * (1 - rng.uniform(0, 0.01))
    times = from_ms(1_700_000_400_000 // HOUR * HOUR + HOUR * np.cumsum(1 + 5 * (rng.random(n) < hole)))
    return pd.DataFrame({"open": o, "high": h, "low": l, "close": c, "volume": 1.0,
                         "available_time": times + pd.Timedelta(HOUR, "ms"), "is_filled": is_filled}, index=times)


def oracle(bars, horizon, up, down, vol_bars, vertical="sign", both="lower"):
    "The definition, bar by bar, in lists: (y, ret, t_start, t_end) or None."
    o, h, l, c = (bars[x].tolist() for x in PRICES)
    time, known, filled = bars.index.tolist(), bars["available_time"].tolist(), bars["is_filled"].tolist()
    out = []
    for t in range(len(bars)):
        last = t + horizon
        window = range(t - vol_bars, last + 1)
        whole = window[0] >= 0 and last < len(bars) and all(known[i] == time[i + 1] for i in window[:-1])
        if not whole or filled[t] or filled[t + 1] or filled[last]:
            out.append(None)
            continue
        returns = [c[i] / c[i - 1] - 1.0 for i in range(t - vol_bars + 1, t + 1)]
        mean = sum(returns) / vol_bars
        sigma = math.sqrt(sum((r - mean) ** 2 for r in returns) / (vol_bars - 1))
        if sigma == 0:
            out.append(None)
            continue
        entry = o[t + 1]
        upper, lower = entry * (1 + up * sigma), entry * (1 - down * sigma)
        y, exit_price, exit_bar = None, c[last], last
        for i in range(t + 1, last + 1):
            hits = []
            if o[i] >= upper or o[i] <= lower:
                hits = [(1 if o[i] >= upper else -1, o[i])]
            else:
                if h[i] >= upper:
                    hits.append((1, upper))
                if l[i] <= lower:
                    hits.append((-1, lower))
                hits.sort(reverse=both == "upper")
            if hits:
                (y, exit_price), exit_bar = hits[0], i
                break
        ret = exit_price / entry - 1
        if y is None:
            y = 0 if vertical == "zero" else (ret > 0) - (ret < 0)
        out.append((float(y), ret, time[t + 1], known[exit_bar]))
    return out


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), horizon=st.integers(1, 15), up=st.floats(0.2, 6), down=st.floats(0.2, 6),
       vol_bars=st.integers(2, 12), vertical=st.sampled_from(["sign", "zero"]), both=st.sampled_from(["lower", "upper"]),
       gap=st.sampled_from([0.0, 0.003, 0.03]))
def test_triple_barrier_equals_the_plain_definition(seed, horizon, up, down, vol_bars, vertical, both, gap):
    bars = market(seed=seed, gap=gap)
    labels = triple_barrier(bars, horizon, up, down, vol_bars, vertical, both)
    assert labels.index.equals(bars.index) and list(labels) == ["y", "ret", "t_start", "t_end"]
    for got, expected in zip(labels.itertuples(index=False), oracle(bars, horizon, up, down, vol_bars, vertical, both)):
        if expected is None:
            assert pd.isna(list(got)).all()
        else:
            assert (got.y, got.t_start, got.t_end) == (expected[0], expected[2], expected[3])
            assert got.ret == pytest.approx(expected[1], rel=1e-12, abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), horizon=st.integers(1, 15), vol_bars=st.integers(2, 12))
def test_forward_return_is_the_vertical_barrier(seed, horizon, vol_bars):
    bars = market(seed=seed)
    held, free = forward_return(bars, horizon, vol_bars), triple_barrier(bars, horizon, np.inf, np.inf, vol_bars)
    pd.testing.assert_frame_equal(held[["ret", "t_start", "t_end"]], free[["ret", "t_start", "t_end"]], check_exact=True)
    expected = held["ret"] / bar_sigma(bars, vol_bars)
    assert np.allclose(held["y"], expected, rtol=1e-12, equal_nan=True)


def vote_oracle(bars, horizon, target, vol_bars, vote_bars, sma_bars):
    "The definition, bar by bar, in lists: (side or None, (y, ret, t_start, t_end, mfe) or None)."
    o, h, l, c = (bars[x].tolist() for x in PRICES)
    time, known, filled = bars.index.tolist(), bars["available_time"].tolist(), bars["is_filled"].tolist()
    unbroken = lambda a, b: a >= 0 and b < len(bars) and all(known[i] == time[i + 1] for i in range(a, b))  # noqa: E731
    for t in range(len(bars)):
        if not unbroken(t - max(*vote_bars, sma_bars - 1), t):
            yield None, None
            continue
        votes = {(x > 0) - (x < 0) for x in (c[t] / c[t - vote_bars[0]] - 1, c[t] / c[t - vote_bars[1]] - 1,
                                             c[t] - sum(c[t - sma_bars + 1 : t + 1]) / sma_bars)}
        side, last = votes.pop() if len(votes) == 1 else 0, t + horizon
        if side == 0 or not unbroken(t - vol_bars, last) or filled[t] or filled[t + 1] or filled[last]:
            yield side, None
            continue
        returns = [c[i] / c[i - 1] - 1.0 for i in range(t - vol_bars + 1, t + 1)]
        mean = sum(returns) / vol_bars
        sigma = math.sqrt(sum((r - mean) ** 2 for r in returns) / (vol_bars - 1))
        if sigma == 0:
            yield side, None
            continue
        entry = o[t + 1]
        level = entry * (1 + side * target * sigma)
        y, price, leave, mfe = 0.0, c[last], last, -math.inf
        for i in range(t + 1, last + 1):
            mfe = max(mfe, side * ((h[i] if side > 0 else l[i]) / entry - 1))
            if side * (o[i] - level) >= 0 or side * ((h[i] if side > 0 else l[i]) - level) >= 0:
                y, price, leave = 1.0, o[i] if side * (o[i] - level) >= 0 else level, i
                break
        yield side, (y, price / entry - 1, time[t + 1], known[leave], mfe)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), horizon=st.integers(1, 15), target=st.floats(0.2, 6), vol_bars=st.integers(2, 12),
       vote_bars=st.tuples(st.integers(1, 12), st.integers(1, 20)), sma_bars=st.integers(2, 15), gap=st.sampled_from([0.0, 0.003, 0.03]))
def test_direction_vote_equals_the_plain_definition(seed, horizon, target, vol_bars, vote_bars, sma_bars, gap):
    bars = market(seed=seed, gap=gap)
    labels = direction_vote(bars, horizon, target, vol_bars, vote_bars, sma_bars)
    assert labels.index.equals(bars.index) and list(labels) == ["y", "ret", "t_start", "t_end", "mfe", "side"]
    for got, (side, expected) in zip(labels.itertuples(index=False), vote_oracle(bars, horizon, target, vol_bars, vote_bars, sma_bars)):
        assert math.isnan(got.side) if side is None else got.side == side
        if expected is None:
            assert pd.isna(list(got)[:-1]).all()
        else:
            assert (got.y, got.t_start, got.t_end) == (expected[0], expected[2], expected[3])
            assert (got.ret, got.mfe) == pytest.approx((expected[1], expected[4]), rel=1e-12, abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), horizon=st.integers(1, 15), target=st.floats(0.2, 6))
def test_a_vote_is_right_exactly_where_the_excursion_reaches_the_target(seed, horizon, target):
    bars = market(seed=seed, gap=0.01)
    labels = direction_vote(bars, horizon, target, 10, (3, 8), 5)
    known = labels[labels["y"].notna()]
    missed = target * bar_sigma(bars, 10)[known.index] - known["mfe"]
    assert (missed[known["y"] == 1] <= 1e-12).all() and (missed[known["y"] == 0] > -1e-12).all()
    assert (known["mfe"] >= 0).all() and (known["mfe"] >= known["side"] * known["ret"] - 1e-12).all()


def test_votes_that_disagree_or_stand_still_carry_no_label():
    bars = market(120, filled=0, hole=0)
    flat = bars.copy()
    flat.iloc[40, flat.columns.get_loc("close")] = flat["close"].iloc[37]  # one return of exactly 0
    labels = direction_vote(flat, 6, 1.0, 10, (3, 8), 5)
    assert labels["side"].iloc[40] == 0 and labels.iloc[40][["y", "ret", "t_start", "t_end", "mfe"]].isna().all()
    assert labels["y"][labels["side"] == 0].isna().all() and (labels["side"] == 0).sum() > 5


def test_the_excursion_ends_with_the_label():
    "What the price does after it reached the target moves nothing."
    bars = market(200, seed=2, filled=0, hole=0)
    before = direction_vote(bars, 12, 0.5, 10, (3, 8), 5)
    early = before[(before["y"] == 1) & (before["t_end"] - before["t_start"] < pd.Timedelta("3h"))]
    t = early.index[len(early) // 2]
    later = bars.copy()
    later.loc[later.index >= before.loc[t, "t_end"], PRICES] *= 3
    pd.testing.assert_series_equal(direction_vote(later, 12, 0.5, 10, (3, 8), 5).loc[t], before.loc[t], check_exact=True)


def test_parameters_ask_for_each_kind():
    bars = market(200)
    asked = LabelParams(kind="direction_vote", horizon_bars=6, up_sigma=2, down_sigma=3, vol_bars=10, vote_bars=(3, 8), sma_bars=5,
                        target_sigma=1.0)
    for kind, expected in (("direction_vote", direction_vote(bars, 6, 1.0, 10, (3, 8), 5)),
                           ("triple_barrier", triple_barrier(bars, 6, 2, 3, 10)), ("forward_return", forward_return(bars, 6, 10))):
        assert make_labels(bars, asked.model_copy(update={"kind": kind})).equals(expected)


def test_times_are_the_open_and_the_close_of_real_bars():
    bars = market(400, seed=3)
    labels = triple_barrier(bars, 12, 2, 2).dropna()
    assert labels["t_start"].isin(bars.index).all() and labels["t_end"].isin(bars["available_time"]).all()
    assert (labels["t_start"] == bars["available_time"].loc[labels.index]).all()
    assert (labels["t_end"] - labels["t_start"] >= pd.Timedelta("1h")).all()
    assert (labels["t_end"] - labels["t_start"] <= pd.Timedelta("12h")).all()


@pytest.mark.parametrize("label", [lambda b: forward_return(b, 6, 10), lambda b: triple_barrier(b, 6, 50, 50, 10),
                                   lambda b: direction_vote(b, 6, 50, 10, (1, 1), 2)])
def test_the_next_open_moves_the_label_and_the_last_close_does_not(label):
    bars = market(60, filled=0, hole=0)
    before = label(bars).iloc[30]
    assert before.notna().all()
    moved = bars.copy()
    moved.iloc[31, moved.columns.get_loc("open")] *= 1.001
    assert label(moved).iloc[30]["ret"] != before["ret"]
    past = bars.copy()
    past.loc[past.index[:31], PRICES] *= 4.0  # returns, hence σ, stay equal to the last bit; close(t) quadruples
    pd.testing.assert_series_equal(label(past).iloc[30], before, check_exact=True)


def test_sigma_is_the_windows_own_and_starts_anew_after_a_hole():
    bars = market(200, seed=5, hole=0.02)
    sigma = bar_sigma(bars, 10)
    jumps = np.flatnonzero(bars.index[1:] != bars["available_time"].iloc[:-1]) + 1
    assert jumps.size
    for jump in jumps:
        assert sigma.iloc[jump : jump + 10].isna().all()
    returns = bars["close"].pct_change()
    run = pd.Series(np.isin(np.arange(200), jumps).cumsum(), index=bars.index)
    returns[run.diff() != 0] = np.nan
    assert np.allclose(sigma, returns.rolling(10).std(), rtol=1e-9, equal_nan=True)
    later = bar_sigma(bars.iloc[50:], 10).dropna()
    assert later.equals(sigma.loc[later.index])


def test_flat_prices_carry_no_label():
    bars = market(80, filled=0, hole=0)
    bars[PRICES] = 100.0
    assert triple_barrier(bars, 5, 2, 2).isna().all(axis=None) and forward_return(bars, 5).isna().all(axis=None)


def test_fewer_bars_than_the_window_give_no_label():
    assert forward_return(market(5, filled=0, hole=0), 2)["y"].isna().all()
    assert forward_return(market(1), 2)["y"].isna().all()


def test_a_bar_that_touches_both_takes_the_lower_unless_told():
    paths = [np.array([x]) for x in (100.0, 110.0, 90.0, 100.0)]
    assert first_touch(*paths, 0, 0, 105.0, 95.0, False) == (0, 95.0, -1)
    assert first_touch(*paths, 0, 0, 105.0, 95.0, True) == (0, 105.0, 1)
    assert first_touch(*paths, 0, 0, 110.0, 80.0, False) == (0, 110.0, 1)  # touching counts


def test_reference(references, close_to):
    "Every entry of the file whose name begins so; one of another form fails."
    for entry in references("triple_barrier."):
        name, x, expected = entry["name"], entry["inputs"], entry["expected"]
        got = close_path_barriers(x["prices"], x["events"], x["target"], x["vertical_bars"], x["pt"], x["sl"], x.get("side"))
        won, signed = (got["ret"] > 0).astype(int), got["ret"]
        found = {"t1": got["t1"], "touch": got["barrier"].map({1: "pt", -1: "sl", 0: "vertical"}), "ret": signed, "signed_ret": signed,
                 "label_sign": np.sign(signed), "label_vertical_zero": got["barrier"],
                 "bin_book": won, "bin_zero_at_vertical": won.where(got["barrier"] != 0, 0)}
        for key, value in expected.items():  # a key that is not known here is a KeyError
            good = close_to(found[key], value, entry["tolerance"]) if key in ("ret", "signed_ret") else found[key].tolist() == value
            assert good, (name, key)


def test_strict_on_closes_touching_in_bars():
    "A close exactly on the barrier is no touch on the close path; a high exactly on it is one in the pipeline."
    assert close_path_barriers([100.0, 102.0, 101.0], [0], [0.02], 2)["barrier"].tolist() == [0]


@pytest.mark.parametrize(("call", "words"), [
    (lambda b: triple_barrier(b, 0, 2, 2), "horizon_bars = 0"),
    (lambda b: triple_barrier(b, 5, -1, 2), "up_sigma = -1"),
    (lambda b: triple_barrier(b, 5, 2, math.nan), "down_sigma = nan"),
    (lambda b: triple_barrier(b, 5, 2, 2, vertical="sgn"), "did you mean 'sign'"),
    (lambda b: forward_return(b, 5, vol_bars=1), "vol_bars = 1"),
    (lambda b: forward_return(b.drop(columns="available_time"), 5), "available_time"),
    (lambda b: direction_vote(b, target_sigma=0), "target_sigma = 0"),
    (lambda b: direction_vote(b, vote_bars=(0, 72)), r"vote_bars\[0\] = 0"),
    (lambda b: direction_vote(b, sma_bars=1), "sma_bars = 1"),
])
def test_bad_input_names_value_and_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call(market(50))

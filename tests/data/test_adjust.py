"""Adjusted prices against a plain loop, and the proof that no later action changes an earlier bar."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.data.adjust import PRICES, adjust, forward_adjusted, growth

DAY = 86_400_000


def make(closes, events):
    "Daily bars with these closes, known 21 hours after midnight; events by day: (dividend as a share of the close before, split)."
    days = from_ms(1_577_836_800_000 + np.arange(len(closes)) * DAY)
    closes = np.array(closes)
    bars = pd.DataFrame({"open": closes * 0.99, "high": closes * 1.01, "low": closes * 0.98, "close": closes, "volume": 1000.0,
                         "available_time": days + pd.Timedelta("21h")}, index=days)
    rows = [(d, share * closes[d - 1] / (split or 1.0) if d else 0.0, split) for d, (share, split) in sorted(events.items()) if d < len(closes)]
    at = days[[d for d, _, _ in rows]]
    actions = pd.DataFrame({"dividend": [x for _, x, _ in rows], "split": [x for _, _, x in rows], "available_time": at + pd.Timedelta("21h")}, index=at)
    return bars, actions.astype({"dividend": float, "split": float})


def oracle(bars, actions, t):
    "Backward from bar t, one action after another: earlier prices are divided by splits and lose the dividend's share."
    price, volume = bars["close"].to_numpy().copy(), bars["volume"].to_numpy().copy()
    for day, action in actions.iterrows():
        at = bars.index.get_loc(day)
        if at > t:
            continue
        split = action["split"] or 1.0
        share = action["dividend"] / (bars["close"].iloc[at - 1] / split) if at else 0.0
        price[:at] *= (1 - share) / split
        volume[:at] *= split
    return price[: t + 1], volume[: t + 1]


markets = st.tuples(
    st.lists(st.floats(1, 1000), min_size=3, max_size=25),
    st.dictionaries(st.integers(0, 24), st.tuples(st.sampled_from([0.0, 0.01, 0.3]), st.sampled_from([0.0, 2.0, 10.0, 0.1])), max_size=6))


@given(market=markets, share=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_as_of_any_bar_equals_the_oracle(market, share):
    bars, actions = make(*market)
    t = int(share * (len(bars) - 1))
    got = adjust(bars, actions, bars["available_time"].iloc[t])
    price, volume = oracle(bars, actions, t)
    np.testing.assert_allclose(got["close"], price, rtol=1e-12)
    np.testing.assert_allclose(got["volume"], volume, rtol=1e-12)
    assert got["close"].iloc[-1] == pytest.approx(bars["close"].iloc[t], rel=1e-15)  # the last price is the one on the tape
    for name in PRICES:
        np.testing.assert_allclose(got[name] / got["close"], bars[name].iloc[: t + 1] / bars["close"].iloc[: t + 1], rtol=1e-12)


@given(market=markets, share=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_forward_and_backward_agree_in_any_window_up_to_one_factor(market, share):
    bars, actions = make(*market)
    t = int(share * (len(bars) - 1))
    ratio = forward_adjusted(bars, actions)["close"].iloc[: t + 1] / adjust(bars, actions, bars["available_time"].iloc[t])["close"]
    np.testing.assert_allclose(ratio, ratio.iloc[0], rtol=1e-12)


@given(market=markets, share=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_later_bars_and_actions_never_change_an_earlier_bar(market, share):
    bars, actions = make(*market)
    t = int(share * (len(bars) - 1))
    whole, early = forward_adjusted(bars, actions), forward_adjusted(bars.iloc[: t + 1], actions[actions.index <= bars.index[t]])
    pd.testing.assert_frame_equal(whole.iloc[: t + 1], early, check_exact=True)
    pd.testing.assert_frame_equal(adjust(bars, actions, bars["available_time"].iloc[t]), adjust(bars.iloc[: t + 1], actions[actions.index <= bars.index[t]]))


def test_apple_and_nvidia_keep_their_value_over_their_splits():
    "AAPL, 4 for 1 on 2020-08-31: 499.23 on Friday's tape, 129.04 on Monday's."
    days = pd.DatetimeIndex(["2020-08-28", "2020-08-31"], tz="UTC").as_unit("ms")
    bars = pd.DataFrame({"close": [499.23, 129.04]}, index=days)
    split = pd.DataFrame({"dividend": [0.0], "split": [4.0]}, index=days[1:])
    total, _ = growth(bars, split)
    assert (bars["close"] * total).pct_change().iloc[1] == pytest.approx(129.04 / (499.23 / 4) - 1)


def test_no_actions_change_nothing_and_no_bars_are_no_bars():
    bars, actions = make([5.0, 6.0, 7.0], {})
    pd.testing.assert_frame_equal(adjust(bars, actions), bars)
    assert len(adjust(bars, actions, pd.Timestamp("2000-01-01", tz="UTC"))) == 0


def test_a_dividend_that_eats_the_price_is_named():
    bars, actions = make([5.0, 6.0, 7.0], {1: (0.1, 0.0)})
    with pytest.raises(InputError, match="2020-01-02: a dividend of 9 after a close of 5"):
        adjust(bars, actions.assign(dividend=9.0))

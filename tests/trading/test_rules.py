"""From probabilities to decisions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import InputError
from cryptoalgo.trading.rules import decide, rank_coins

INDEX = pd.date_range("2024-01-01", periods=8, freq="1h", tz="UTC", unit="ms", name="event_time")
BARS = pd.DataFrame({"close": 1.0, "is_filled": False}, index=INDEX)


def table(prob, symbol="X", bars=BARS, **keys):
    return decide(pd.DataFrame({"prob": prob}, index=INDEX[: len(prob)]), bars, symbol, **({"threshold": 0.6} | keys))


def test_both_thresholds_count_when_touched():
    assert table([0.6, 0.4, 0.59, 0.41, np.nan])[["event_time", "side"]].values.tolist() == [[INDEX[0], 1], [INDEX[1], -1]]


def test_a_side_that_is_off_never_trades():
    assert table([0.9, 0.1], short=False)["side"].tolist() == [1]
    assert table([0.9, 0.1], long=False)["side"].tolist() == [-1]
    assert table([0.35, 0.25], short=False, threshold=0.3)["side"].tolist() == [1]  # one side alone may ask for less than ½


def test_no_decision_on_a_filled_bar():
    bars = BARS.assign(is_filled=[True, False] * 4)
    assert table([0.9] * 8, bars=bars)["event_time"].tolist() == INDEX[1::2].tolist()


@given(probs=st.lists(st.lists(st.floats(0, 1), min_size=8, max_size=8), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_ranks_follow_conviction_and_ignore_the_order_of_tables(probs):
    tables = [table(p, symbol=f"C{i}") for i, p in enumerate(probs)]
    joint = rank_coins(*tables)
    assert joint.equals(rank_coins(*reversed(tables)))
    for _, group in joint.groupby("event_time"):
        assert group["rank"].tolist() == list(range(1, len(group) + 1))
        sure = (group["prob"] - 0.5).abs().round(12).tolist()
        assert sure == sorted(sure, reverse=True)


@pytest.mark.parametrize("keys", [{"threshold": 0.5}, {"threshold": 0.0, "short": False}, {"threshold": 1.1}])
def test_a_threshold_under_which_both_sides_hold_is_refused(keys):
    with pytest.raises(InputError, match="threshold"):
        table([0.7], **keys)


def test_a_prediction_without_its_bar_is_refused():
    with pytest.raises(InputError, match="has no bar"):
        table([0.7] * 3, bars=BARS.iloc[1:])

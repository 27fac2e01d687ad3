"""The grid, the joins and the account, each against its plainest definition."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.data.quality import raw_qa, regular_grid

from .conftest import make_bars

HOUR = 3_600_000
T0 = 1_704_067_200_000


def known(frame):
    return frame.assign(available_time=from_ms(to_ms(frame.index) + HOUR))


kept_rows = st.lists(st.booleans(), min_size=30, max_size=30).filter(any)


@given(keep=kept_rows, fill=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_short_holes_are_filled_flat_and_long_ones_left_open(keep, fill):
    recorded = known(make_bars(30))[np.array(keep)]
    grid = regular_grid(recorded, "1h", fill)
    pd.testing.assert_frame_equal(grid[~grid["is_filled"]].drop(columns="is_filled"), recorded, check_freq=False)
    steps = np.diff(to_ms(grid.index)) // HOUR
    assert ((steps == 1) | (steps > fill + 1)).all()
    before = recorded.reindex(grid.index, method="ffill")
    filled = grid[grid["is_filled"]]
    for column in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(filled[column], before.loc[filled.index, "close"])
    assert (filled["volume"] == 0).all()
    assert (to_ms(grid["available_time"]) - to_ms(grid.index) == HOUR).all()


def test_bars_that_were_filled_before_stay_filled():
    bars = known(make_bars(5)).assign(is_filled=[False, True, False, False, False])
    assert regular_grid(bars, "1h", 3)["is_filled"].tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("change", [lambda b: b.set_axis(b.index + pd.Timedelta("1min")), lambda b: b.iloc[[1, 0, 2]], lambda b: b.iloc[[0, 0, 1]]])
def test_bars_off_the_grid_are_refused(change):
    with pytest.raises(InputError, match="not on the rising grid of 1h"):
        regular_grid(change(known(make_bars(6))), "1h", 3)


def test_the_account():
    bars = known(make_bars(48))
    bars.iloc[3, 4] = 0.0
    qa = raw_qa(bars.drop(bars.index[[5, 6, *range(20, 30)]]), "1h", 3, revisions=2, waivers=["why"])
    assert (qa["rows"], qa["gaps"], qa["filled_bars"], qa["missing_bars"], qa["zero_volume_bars"], qa["revisions"]) == (36, 1, 2, 12, 1, 2)
    assert qa["holes"] == [{"after": "2024-01-01T19:00:00Z", "before": "2024-01-02T06:00:00Z", "bars": 10}]
    assert json.loads(json.dumps(qa, allow_nan=False)) == qa and qa["waivers"] == ["why"]


@pytest.mark.data
def test_recorded_holes_are_those_of_the_exchange(recorded):
    store, _ = recorded
    qa = raw_qa(store.candles("binance", "BTCUSDT", "1h"), "1h", 3)
    assert (qa["rows"], qa["missing_bars"], qa["zero_volume_bars"]) == (72_166, 122, 3)
    assert {"after": "2018-02-08T00:00:00Z", "before": "2018-02-09T10:00:00Z", "bars": 33} in qa["holes"]

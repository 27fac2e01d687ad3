"""Mending invents nothing, forgets nothing it does, and is done after one time."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.data.mend import mend

from .conftest import make_bars

HOUR = 3_600_000
COLUMNS = ["open", "high", "low", "close", "volume"]


def known(frame):
    return frame.assign(available_time=from_ms(to_ms(frame.index) + HOUR))


GOOD = known(make_bars(40))
damages = st.tuples(st.lists(st.integers(0, 39), min_size=1, max_size=60), st.lists(st.tuples(st.integers(0, 39), st.sampled_from(COLUMNS)), max_size=6), st.integers(0, 4))


def damage(rows, holes):
    frame = GOOD.copy()
    for row, column in holes:
        frame.iloc[row, frame.columns.get_loc(column)] = np.nan
    return frame.iloc[rows]


@given(case=damages)
@settings(max_examples=150, deadline=None)
def test_every_number_that_is_not_flagged_was_there(case):
    rows, holes, fill = case
    frame = damage(rows, holes)
    done = mend(frame, "1h", fill)
    kept = done.frame[~done.frame["is_filled"]]
    for time, row in kept.iterrows():
        assert tuple(row[COLUMNS]) in set(frame.loc[[time], COLUMNS].itertuples(index=False, name=None))
    filled = done.frame[done.frame["is_filled"]]
    assert (filled["volume"] == 0).all() and filled["close"].isin(kept["close"]).all()


@given(case=damages)
@settings(max_examples=100, deadline=None)
def test_mending_twice_is_mending_once_and_every_row_is_accounted_for(case):
    rows, holes, fill = case
    frame = damage(rows, holes)
    done = mend(frame, "1h", fill)
    again = mend(done.frame, "1h", fill)
    pd.testing.assert_frame_equal(again.frame, done.frame, check_freq=False)
    assert again.fixes == []
    if not done.blocks:
        count = {fix.what.split(",")[0].split(" up to")[0].split(" without")[0]: fix.count for fix in done.fixes}
        assert len(frame) - count.get("rows that stood twice", 0) - count.get("rows", 0) == int((~done.frame["is_filled"]).sum())
        assert int(done.frame["is_filled"].sum()) == count.get("bars of holes", 0)


def test_good_bars_are_left_alone():
    done = mend(GOOD, "1h", 3)
    assert done.fixes == done.blocks == []
    pd.testing.assert_frame_equal(done.frame.drop(columns="is_filled"), GOOD, check_freq=False)


@pytest.mark.parametrize(("frame", "says"), [
    (pd.concat([GOOD, GOOD.iloc[3:4].assign(close=7.5)]), r"1 times have rows that differ, first 2024-01-01 03:00: close is .*, 7.5; find out"),
    (GOOD.set_axis(GOOD.index + pd.Timedelta("7min")), "40 stamps are off the grid of 1h, first 2024-01-01 00:07"),
    (GOOD.iloc[::2], "rows are mostly 120 minutes apart, 60 were expected"),
    (GOOD.assign(volume=np.where(np.arange(40) < 30, np.nan, 1.0)), r"volume is NaN on 75% of 40 rows; at most 50%"),
    (GOOD.assign(close=np.nan), "no row is left"),
])
def test_what_needs_a_guess_is_named_and_not_done(frame, says):
    import re

    assert any(re.search(says, block) for block in mend(frame, "1h", 0).blocks)

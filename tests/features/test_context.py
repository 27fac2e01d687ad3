"""Funding and open interest: known at the close, missing when old, never zero when unknown."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import InputError
from cryptoalgo.features.context import MAX_AGE_H, as_of, market_context

HOUR = pd.Timedelta("1h")
INDEX = pd.date_range("2024-01-01", periods=60, freq="h", tz="UTC", unit="ms", name="event_time")
BARS = pd.DataFrame({"close": 1.0, "available_time": INDEX + HOUR}, index=INDEX)


def published(minutes, name, late=0):
    "A series that is published at these minutes after the first bar's open."
    times = (INDEX[0] + pd.to_timedelta(np.asarray(minutes), "min")).as_unit("ms")
    return pd.DataFrame({name: np.arange(1.0, len(times) + 1), "available_time": times + pd.Timedelta(minutes=late)}, index=times)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-600, 3600), min_size=0, max_size=30, unique=True).map(sorted), st.integers(0, 90))
def test_each_bar_sees_exactly_what_was_known_at_its_close(minutes, late):
    funding = published(minutes, "funding_rate", late)
    table = market_context(BARS, funding, max_age_h=MAX_AGE_H)
    for t in range(0, 60, 7):
        close = BARS["available_time"].iloc[t]
        known = funding[funding["available_time"] <= close]
        fresh = len(known) > 0 and close - known["available_time"].iloc[-1] <= 9 * HOUR
        settled = known.loc[known["available_time"] > close - HOUR, "funding_rate"].sum()
        expected = [known["funding_rate"].iloc[-1], settled] if fresh else [np.nan, np.nan]
        assert np.array_equal(table.iloc[t], expected, equal_nan=True)


def test_a_stamp_at_the_close_belongs_to_the_bar_that_closes():
    table = market_context(BARS, published([480], "funding_rate"))
    assert table["funding_event"].iloc[7] == 1.0 and table["funding_event"].iloc[8] == 0.0
    assert table["funding_event"].iloc[:7].isna().all() and table["funding_event"].iloc[17:].isna().all()


def test_nothing_given_is_no_column_and_nothing_known_is_nan():
    assert market_context(BARS).columns.tolist() == []
    assert market_context(BARS, open_interest=published([], "open_interest"))["open_interest"].isna().all()


def test_availability_that_goes_back_in_time_is_refused():
    funding = published([60, 120], "funding_rate")
    with pytest.raises(InputError, match="funding_rate: available_time goes back"):
        as_of(BARS, funding["funding_rate"], funding["available_time"].iloc[::-1], 9)


def test_bitcoin_counts_for_an_hour_and_a_daily_close_for_five_days():
    btc = pd.DataFrame({"close": [100.0, 101.0], "available_time": INDEX[1:3]}, index=INDEX[:2])
    seen = market_context(BARS, btc=btc)["btc_close"]
    assert seen.iloc[:3].tolist() == [100.0, 101.0, 101.0] and seen.iloc[3:].isna().all()
    day = pd.DatetimeIndex(["2024-01-01"], tz="UTC").as_unit("ms")
    rows = pd.DataFrame({"ticker": ["SPY", "^VIX"], "close": [400.0, 17.0], "available_time": day.repeat(2) + pd.Timedelta("21h")}, index=day.repeat(2))
    table = market_context(BARS, macro=rows, round_trip_cost=0.001)
    assert table["spy"].iloc[:20].isna().all() and (table["spy"].iloc[20:] == 400).all() and (table["vix"].iloc[20:] == 17).all()
    later = BARS.set_axis(INDEX + pd.Timedelta("5D")).assign(available_time=lambda b: b.index + HOUR)
    assert market_context(later, macro=rows)["spy"].notna().sum() == 21  # to the 21st hour of the fifth day
    assert (table["round_trip_cost"] == 0.001).all()


def test_a_ticker_that_no_feature_reads_is_refused():
    rows = pd.DataFrame({"ticker": ["VIX"], "close": [17.0], "available_time": INDEX[:1]}, index=INDEX[:1])
    with pytest.raises(InputError, match=r"macro: 'VIX' is no input.*\^VIX"):
        market_context(BARS, macro=rows)

"""What was known of daily markets at a moment: their own closes, early ones too, and never beyond the staleness limit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.data.contracts import known_at
from cryptoalgo.data.macro import daily_table, join_as_of, macro_table
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey


def utc(*times):
    return pd.DatetimeIndex(times, tz="UTC").as_unit("ms")


@given(known=st.lists(st.integers(0, 100), max_size=20).map(sorted), moments=st.lists(st.integers(-5, 130), min_size=1, max_size=20), age=st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_the_join_is_the_plainest_loop(known, moments, age):
    values = np.arange(len(known)) + 0.5
    expected = []
    for m in moments:
        past = [i for i, k in enumerate(known) if k <= m]
        expected.append(values[past[-1]] if past and m - known[past[-1]] <= age else np.nan)
    np.testing.assert_array_equal(join_as_of(np.array(moments), np.array(known, dtype="int64"), values, age), expected)


def test_times_that_fall_are_refused():
    with pytest.raises(InputError, match="goes back in time"):
        join_as_of(np.array([1]), np.array([2, 1]), np.zeros(2), 9)


@pytest.mark.parametrize(("ticker", "day", "known"), [
    ("SPY", "2024-03-08", "2024-03-08 21:00"),  # winter
    ("SPY", "2024-03-11", "2024-03-11 20:00"),  # summer time began on Sunday
    ("SPY", "2024-11-01", "2024-11-01 20:00"), ("SPY", "2024-11-04", "2024-11-04 21:00"),
    ("SPY", "2024-11-29", "2024-11-29 18:00"),  # the day after Thanksgiving ends at one
    ("SPY", "2024-12-24", "2024-12-24 18:00"),
    ("^VIX", "2024-03-11", "2024-03-11 20:15"), ("^VIX", "2024-11-29", "2024-11-29 18:15"),
    ("DX-Y.NYB", "2024-03-11", "2024-03-11 21:00"), ("DX-Y.NYB", "2024-11-29", "2024-11-29 22:00"),
    ("BMW.DE", "2024-03-11", "2024-03-11 16:36"),  # Frankfurt, three weeks before its own summer time
    ("BRK-B", "2024-03-11", "2024-03-11 20:00"),
])
def test_a_daily_bar_is_known_at_its_own_market_s_close(contracts, ticker, day, known):
    assert known_at(utc(day), contracts["daily"], venue="yahoo", symbol=ticker, timeframe="1d")[0] == utc(known)[0]


@pytest.mark.parametrize("ticker", ["BTC-USD", "EURUSD=X", "GC=F", "VOD.XX"])
def test_a_ticker_without_a_calendar_is_refused(contracts, ticker):
    with pytest.raises(InputError, match=r"add '\*.*' to calendars in params/contracts/macro.yaml"):
        known_at(utc("2024-03-11"), contracts["daily"], venue="yahoo", symbol=ticker, timeframe="1d")


@pytest.fixture
def spy(tmp_path, contracts):
    "SPY as traded over a split and a dividend; a store that also holds an adjusted QQQ."
    store, days = Store(tmp_path / "x.db"), utc("2024-11-25", "2024-11-26", "2024-11-27", "2024-11-29", "2024-12-02")
    known = known_at(days, contracts["daily"], venue="yahoo", symbol="SPY", timeframe="1d")
    close = np.array([600.0, 300.0, 301.0, 302.0, 300.0])
    bars = pd.DataFrame({**dict.fromkeys(("open", "high", "low", "close"), close), "volume": 1.0, "available_time": known}, index=days)
    store.upsert(SeriesKey("daily", "yahoo", "SPY", "1d"), bars, Provenance("tape"))
    actions = pd.DataFrame({"dividend": [0.0, 2.0], "split": [2.0, 0.0], "available_time": known[[1, 4]]}, index=days[[1, 4]])
    store.upsert(SeriesKey("actions", "yahoo", "SPY"), actions, Provenance("tape"))
    store.upsert(SeriesKey("daily", "yahoo", "QQQ", "1d", adjusted=True), bars, Provenance("file"))
    return store


def test_a_table_says_what_was_known_and_from_where(spy):
    moments = utc("2024-11-25 20:59", "2024-11-26 20:59", "2024-11-26 21:00", "2024-11-29 18:00", "2024-12-02 20:59", "2024-12-02 21:00", "2024-12-07 21:00",
                  "2024-12-07 21:01")
    table = macro_table(spy, ["SPY", "QQQ"], moments)
    last = 600 * (1 - 2 / 302) ** -1 * 300 / 300
    np.testing.assert_allclose(table.values["SPY"], [np.nan, 600, 600, 604, 604, last, last, np.nan])
    np.testing.assert_allclose(table.values["QQQ"], [np.nan, 600, 300, 302, 302, 300, 300, np.nan])
    assert table.sources == {"SPY": "as traded, adjusted forward", "QQQ": "adjusted when it was downloaded"}
    with pytest.raises(InputError, match="GLD"):
        macro_table(spy, ["GLD"], moments)


def test_a_table_of_an_early_stretch_is_the_beginning_of_a_longer_one(spy):
    "Nothing later changes what was known."
    moments = pd.date_range("2024-11-25", "2024-12-05", freq="h", tz="UTC", unit="ms")
    whole = macro_table(spy, ["SPY"], moments).values
    for cut in (30, 60, 120):
        known = spy.read(SeriesKey("daily", "yahoo", "SPY", "1d"))
        early = Store(f"{spy.url.database}.{cut}")
        for key in (SeriesKey("daily", "yahoo", "SPY", "1d"), SeriesKey("actions", "yahoo", "SPY")):
            rows = spy.read(key)
            rows = rows[rows["available_time"] <= moments[cut]]
            if len(rows):
                early.upsert(key, rows, Provenance("early"))
        if len(known[known["available_time"] <= moments[cut]]):
            pd.testing.assert_frame_equal(macro_table(early, ["SPY"], moments[: cut + 1]).values, whole.iloc[: cut + 1], check_exact=True)


def test_the_daily_table_is_what_was_known_at_midnight(spy):
    table = daily_table(spy, ["SPY"], "2024-11-26", "2024-12-01")
    assert table["SPY"].tolist() == [600.0, 600.0, 602.0, 602.0, 604.0, 604.0] and (table["available_time"] == table.index).all()


@pytest.mark.data
def test_recorded_macro_is_marked_adjusted_and_joins_by_its_close(recorded):
    store, _ = recorded
    tickers = ["SPY", "QQQ", "^VIX", "DX-Y.NYB", "GLD", "TLT"]
    hours = pd.date_range("2024-11-28", "2024-12-03", freq="h", tz="UTC", unit="ms")
    table = macro_table(store, tickers, hours)
    assert set(table.sources.values()) == {"adjusted when it was downloaded"} and table.values.notna().all().all()
    spy = store.daily("SPY")
    assert table.values["SPY"][utc("2024-11-29 17:00")[0]] == spy["close"][utc("2024-11-27")[0]]
    assert table.values["SPY"][utc("2024-11-29 18:00")[0]] == spy["close"][utc("2024-11-29")[0]]
    vix = store.daily("^VIX")["close"]
    assert table.values["^VIX"][utc("2024-11-29 19:00")[0]] == vix[utc("2024-11-29")[0]] != table.values["^VIX"][utc("2024-11-29 18:00")[0]]
    assert (to_ms(spy["available_time"]) > to_ms(spy.index)).all()

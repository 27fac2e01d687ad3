"""Daily bars through the real yfinance from a replay exchange that speaks as Yahoo does: the tape comes back."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import moment
from cryptoalgo.data.contracts import known_at
from cryptoalgo.data.exchanges import Patience
from cryptoalgo.data.replay import ReplayClock, serving
from cryptoalgo.data.replay_faults import parse_faults
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey
from cryptoalgo.data.yahoo import as_traded, pull_daily

QUICK = Patience(attempts=8, first_s=0.001, longest_s=0.01, timeout_s=5)
SPY, ACTIONS = SeriesKey("daily", "yahoo", "SPY", "1d"), SeriesKey("actions", "yahoo", "SPY")


@pytest.fixture
def tape(tmp_path, contracts):
    "Sixty sessions of SPY as traded: a dividend, four for one, another dividend; and ^VIX without volume."
    store = Store(tmp_path / "tape.db")
    days = pd.bdate_range("2024-01-02", "2024-04-05", tz="UTC", unit="ms", name="event_time")
    days = days[~days.isin(pd.to_datetime(["2024-01-15", "2024-02-19", "2024-03-29"]).tz_localize("UTC"))]
    close = np.round(480 + np.cumsum(np.random.default_rng(1).normal(0, 2, len(days))), 2)
    close[30:] = np.round(close[30:] / 4, 2)
    bars = pd.DataFrame({"open": close, "high": close + 1.5, "low": close - 1.25, "close": close + 0.25, "volume": np.arange(len(days)) * 400.0 + 4000}, index=days)
    vix = pd.DataFrame({**dict.fromkeys(("open", "high", "low", "close"), np.linspace(13, 15, len(days)).round(2)), "volume": 0.0}, index=days)
    for ticker, frame in (("SPY", bars), ("^VIX", vix)):
        known = known_at(days, contracts["daily"], venue="yahoo", symbol=ticker, timeframe="1d")
        store.upsert(SPY._replace(symbol=ticker), frame.assign(available_time=known), Provenance("tape"))
    known = known_at(days[[10, 30, 50]], contracts["actions"], venue="yahoo", symbol="SPY", timeframe="1d")
    store.upsert(ACTIONS, pd.DataFrame({"dividend": [1.5, 0.0, 0.4], "split": [0.0, 4.0, 0.0], "available_time": known}, index=days[[10, 30, 50]]), Provenance("tape"))
    return store


@pytest.fixture
def ours(tmp_path):
    return Store(tmp_path / "ours.db")


def ask(tape, ours, contracts, now, faults="", tickers=("SPY",), since="2024-01-01"):
    with serving(tape, ReplayClock(now, 0), parse_faults(faults, seed=2)) as yahoo:
        return pull_daily(ours, contracts, tickers, since=moment(since), now_ms=moment(now), base_url=yahoo.url, patience=QUICK), yahoo


@pytest.mark.parametrize("faults", ["", "429=.1,500=.1,truncated=.15,reset=.1,duplicated=.2,disordered=.2,retry_after=0"])
def test_the_tape_comes_back_as_it_was_traded(tape, ours, contracts, faults):
    rows, _ = ask(tape, ours, contracts, "2024-04-06 12:00", faults, ("SPY", "^VIX"))
    assert [(r.refused, r.failed) for r in rows] == [(None, None)] * 3
    for key in (SPY, ACTIONS, SPY._replace(symbol="^VIX")):
        pd.testing.assert_frame_equal(ours.read(key), tape.read(key), check_exact=True)


def test_a_day_that_is_still_traded_is_not_stored(tape, ours, contracts):
    for now, last in (("2024-03-05 20:59", "2024-03-04"), ("2024-03-05 21:00", "2024-03-05")):
        ask(tape, ours, contracts, now)
        assert ours.read(SPY).index[-1] == pd.Timestamp(last, tz="UTC")
    assert len(ours.revisions(SPY)) == 0


def test_a_later_split_changes_no_stored_row(tape, ours, contracts):
    "Ten days before the split and ten after: the second answer is in quarters, what is stored is not."
    ask(tape, ours, contracts, "2024-02-01 22:00")
    before = ours.read(SPY)
    rows, _ = ask(tape, ours, contracts, "2024-02-20 22:00")
    assert rows[0].unchanged > 0 and rows[0].revised == 0 and len(ours.revisions(SPY)) == 0
    pd.testing.assert_frame_equal(ours.read(SPY).iloc[: len(before)], before, check_exact=True)


def test_a_second_pull_asks_for_the_last_days_only(tape, ours, contracts):
    ask(tape, ours, contracts, "2024-04-06 12:00")
    rows, _ = ask(tape, ours, contracts, "2024-04-06 12:00")
    assert rows[0].inserted == 0 and 4 <= rows[0].unchanged <= 8


def test_unknown_tickers_and_a_dead_line_are_told_apart_and_the_others_go_on(tape, ours, contracts):
    rows, _ = ask(tape, ours, contracts, "2024-04-06 12:00", tickers=("NOSUCH", "BTC-USD", "SPY"))
    assert "NOSUCH" in rows[0].refused and "no calendar" in rows[1].refused and rows[2].inserted > 0
    rows = pull_daily(ours, contracts, ["QQQ"], since=0, now_ms=moment("2024-04-06"), base_url="http://127.0.0.1:9", patience=QUICK._replace(attempts=2))
    assert "QQQ failed 2 times" in rows[0].failed and "\n" not in rows[0].failed


def test_prices_that_jump_by_an_unknown_split_are_refused_by_contract(tape, ours, contracts, tmp_path):
    silent = Store(tmp_path / "silent.db")
    silent.upsert(SPY, tape.read(SPY), Provenance("tape"))  # the same prices, and no word of the split
    rows, _ = ask(silent, ours, contracts, "2024-04-06 12:00")
    assert "is a move by a factor of" in rows[0].refused and ours.stored() == []


def test_the_dollar_index_has_a_calendar_for_its_actions_too(tape, ours, contracts):
    days = tape.read(SPY).index
    dollar = SPY._replace(symbol="DX-Y.NYB")
    known = known_at(days, contracts["daily"], venue="yahoo", symbol=dollar.symbol, timeframe="1d")
    flat = pd.DataFrame({**dict.fromkeys(("open", "high", "low", "close"), np.linspace(102, 104, len(days)).round(2)), "volume": 0.0}, index=days)
    tape.upsert(dollar, flat.assign(available_time=known), Provenance("tape"))
    rows, _ = ask(tape, ours, contracts, "2024-04-06 12:00", tickers=("DX-Y.NYB",))
    assert [(r.refused, r.failed, r.inserted) for r in rows] == [(None, None, len(days))]
    pd.testing.assert_frame_equal(ours.read(dollar), tape.read(dollar), check_exact=True)


def test_a_ticker_of_another_exchange_never_stops_the_others(tape, ours, contracts):
    rows, _ = ask(tape, ours, contracts, "2024-04-06 12:00", tickers=("7203.T", "^FTSE", "SPY"))
    assert rows[0].refused and "'^FTSE'" in rows[1].refused and rows[2].inserted > 0


def test_bars_are_not_stored_without_actions_that_break_their_contract(tape, ours, contracts):
    strict = contracts | {"actions": contracts["actions"].model_copy(update={"columns": contracts["actions"].columns | {
        "split": contracts["actions"].columns["split"].model_copy(update={"at_most": 3.0})}})}
    rows, _ = ask(tape, ours, strict, "2024-04-06 12:00")
    assert "split is 4" in rows[0].refused and ours.stored() == []


def test_what_yahoo_does_not_know_is_asked_twice_and_no_more(tape, ours, contracts, monkeypatch):
    pauses = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    rows, _ = ask(tape, ours, contracts, "2024-04-06 12:00", tickers=("NOSUCH",))
    assert "NOSUCH" in rows[0].refused and len(pauses) == 1


@given(prices=st.lists(st.integers(100, 999_999), min_size=2, max_size=30), splits=st.dictionaries(st.integers(0, 29), st.sampled_from([2.0, 4.0, 10.0, 0.1, 1.5]), max_size=4))
@settings(max_examples=100, deadline=None)
def test_undoing_splits_in_single_precision_gives_the_ticks_back(prices, splits):
    days = pd.date_range("2020-01-01", periods=len(prices), tz="America/New_York")
    split = np.array([splits.get(i, 0.0) for i in range(len(prices))])
    later = np.array([np.prod([s for s in split[i + 1:] if s] or [1.0]) for i in range(len(prices))])
    tape = np.array(prices) / 100
    shown = np.float32(tape / later).astype("float64")
    history = pd.DataFrame({**dict.fromkeys(("Open", "High", "Low", "Close"), shown), "Volume": 1e6 * later, "Dividends": 0.0, "Stock Splits": split}, index=days)
    bars, actions = as_traded(history)
    assert bars["close"].tolist() == tape.tolist()
    assert (bars["volume"] == 1e6).all() and actions["split"].tolist() == split[split > 0].tolist()

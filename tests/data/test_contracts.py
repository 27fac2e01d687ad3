"""Every rule names row, time, value and remedy; waivers excuse exactly what they say."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import InputError
from cryptoalgo.data.contracts import Waiver, coverage, known_at, load_contract, load_contracts, same_venue
from cryptoalgo.data.validation import validate

from .conftest import CONTRACTS, make_bars

SPOT = {"venue": "binance", "symbol": "BTCUSDT", "timeframe": "1h", "source": "BTCUSDT-1h.csv"}


def utc(text):
    return pd.Timestamp(text, tz="UTC")


def with_value(frame, column, row, value):
    frame = frame.copy()
    frame.iloc[row, frame.columns.get_loc(column)] = value
    return frame


def test_good_bars_pass_unchanged(bars, contracts):
    done = validate(bars, contracts["candles"], **SPOT)
    pd.testing.assert_frame_equal(done.frame, bars)
    assert done.waived == []


@pytest.mark.parametrize(("breaks", "words"), [
    (lambda b: with_value(b, "close", 16, np.nan), ["row 17 (2024-01-01 16:00)", "close is NaN"]),
    (lambda b: with_value(b, "volume", 3, -1.0), ["row 4", "volume is -1", "at least 0"]),
    (lambda b: with_value(b, "open", 3, np.inf), ["row 4", "open is inf"]),
    (lambda b: with_value(b, "low", 3, 0.0), ["row 4", "low is 0", "above 0"]),
    (lambda b: with_value(b, "high", 5, 1.0), ["row 6", "high 1 is below low", "high >= low"]),
    (lambda b: with_value(b, "high", 5, b["low"].iloc[5]), ["row 6", "leaves out", "must hold open and close"]),
    (lambda b: with_value(b, "low", 5, b["high"].iloc[5]), ["row 6", "low", "leaves out"]),
    (lambda b: with_value(b, "high", 5, 1000.0), ["row 6", "high 1000", "high_low_ratio"]),
    (lambda b: b.assign(**{c: b[c].where(np.arange(48) < 30, b[c] * 5) for c in ("open", "high", "low", "close")}),
     ["row 31", "factor of", "another instrument", "close_ratio"]),
    (lambda b: b.iloc[[0, 1, 1, 2]], ["row 3 (2024-01-01 01:00)", "stands twice"]),
    (lambda b: b.iloc[[0, 2, 1, 3]], ["row 3 (2024-01-01 01:00)", "after 2024-01-01 02:00", "sort"]),
    (lambda b: b.drop(b.index[10:20]), ["row 11 (2024-01-01 20:00)", "10 hours are missing", "'gap'"]),
    (lambda b: b.set_axis(b.index + pd.Timedelta("1min")), ["row 1", "off the grid of 1 h"]),
    (lambda b: b.drop(columns="close"), ["column 'close' is missing"]),
    (lambda b: b.rename(columns={"close": "Close"}), ["column 'close' is missing", "did you mean 'Close'"]),
    (lambda b: b.iloc[:0], ["holds no rows"]),
    (lambda b: b.assign(close=b["close"].astype(str)), ["column 'close' is", "float64"]),
])
def test_breach_is_named(bars, contracts, breaks, words):
    with pytest.raises(InputError) as e:
        validate(breaks(bars), contracts["candles"], **SPOT)
    message = str(e.value)
    assert message.startswith("BTCUSDT-1h.csv") and "\n" not in message
    assert all(word in message for word in words), message


@given(row=st.integers(0, 47), column=st.sampled_from(["open", "high", "low", "close"]), factor=st.sampled_from([0.01, 100.0, -1.0, np.nan]))
@settings(max_examples=25, deadline=None)
def test_any_absurd_price_is_refused_at_its_row_or_the_next(row, column, factor):
    bars, contract = make_bars(), load_contract(CONTRACTS / "candles.yaml")
    with pytest.raises(InputError) as e:
        validate(with_value(bars, column, row, bars[column].iloc[row] * factor), contract, **SPOT)
    assert f"row {row + 1} (" in str(e.value)


def test_first_breach_first_and_the_others_counted(bars, contracts):
    broken = with_value(with_value(bars, "close", 20, np.nan), "volume", 9, -1.0)
    with pytest.raises(InputError, match=r"row 10 .*\(also 1 of not_null\)"):
        validate(broken, contracts["candles"], **SPOT)


def outage(first, last, **changes):
    values = {"rule": "gap", "venue": "binance", "symbol": "*", "from": utc(first), "to": utc(last),
              "reason": "the exchange was down", "granted": dt.date(2024, 2, 1)}
    return Waiver(**{**values, **changes})


@pytest.mark.parametrize(("waiver", "excused"), [
    (outage("2024-01-01 09:00", "2024-01-01 20:00"), True),
    (outage("2024-01-01 10:00", "2024-01-01 20:00"), False),  # does not cover the start of the hole
    (outage("2024-01-01 09:00", "2024-01-01 19:00"), False),  # nor here its end
    (outage("2024-01-01 09:00", "2024-01-01 20:00", venue="bybit"), False),
    (outage("2024-01-01 09:00", "2024-01-01 20:00", symbol="ETHUSDT"), False),
    (outage("2024-01-01 09:00", "2024-01-01 20:00", rule="close_ratio"), False),
])
def test_a_waiver_excuses_the_whole_hole_of_its_series_or_nothing(bars, contracts, waiver, excused):
    contract = contracts["candles"].model_copy(update={"waivers": (waiver,)})
    hole = bars.drop(bars.index[10:20])
    if excused:
        assert validate(hole, contract, **SPOT).waived == [waiver]
    else:
        with pytest.raises(InputError, match="10 hours are missing"):
            validate(hole, contract, **SPOT)


def events(hours, rates=1e-4):
    times = pd.DatetimeIndex(pd.to_datetime(np.asarray(hours, dtype="float64") * 3600, unit="s", utc=True)).as_unit("ms")
    return pd.DataFrame({"funding_rate": rates}, index=times.rename("event_time"))


@pytest.mark.parametrize(("frame", "words"), [
    (events([0, 8, 16, 32]), "8 hours are missing"),
    (events([0, 8, 8.002, 16]), "two feeds under one name"),
    (events([0, 8, 15, 16]), "off the grid of 8 h"),
    (events([0, 8, 16], [1e-4, 0.2, 1e-4]), "funding_rate is 0.2"),
])
def test_funding_rules(contracts, frame, words):
    with pytest.raises(InputError, match=words):
        validate(frame, contracts["funding"], venue="binanceusdm", symbol="BTCUSDT", timeframe="")


def test_funding_a_little_late_is_on_its_grid(contracts):
    assert validate(events([0, 8.0004, 16]), contracts["funding"], venue="binanceusdm", symbol="BTCUSDT", timeframe="").waived == []


def test_open_interest_needs_one_of_its_columns_and_no_zero(contracts, bars):
    of = {"venue": "bybit", "symbol": "BTCUSDT", "timeframe": "1h"}
    usd = pd.DataFrame({"open_interest_value": 5.0}, index=bars.index)
    assert list(validate(usd, contracts["open_interest"], **of).frame) == ["open_interest_value"]
    with pytest.raises(InputError, match=r"row 4 .*open_interest is 0"):
        validate(pd.DataFrame({"open_interest": np.where(np.arange(48) == 3, 0.0, 1.0)}, index=bars.index), contracts["open_interest"], **of)
    with pytest.raises(InputError, match="none of the columns"):
        validate(bars[["close"]], contracts["open_interest"], **of)


def daily(dates):
    frame = make_bars(len(dates))
    return frame.set_axis(pd.DatetimeIndex(pd.to_datetime(dates, utc=True, format="ISO8601")).as_unit("ms").rename("event_time"))


def test_daily_bars_belong_to_trading_days(contracts):
    of = {"venue": "yahoo", "symbol": "SPY", "timeframe": "1d"}
    assert validate(daily(["2024-07-03", "2024-07-05", "2024-07-08"]), contracts["daily"], **of).waived == []
    for date, name in (("2024-07-04", "a holiday"), ("2024-07-06", "a Saturday"), ("2024-07-05 12:00", "no midnight")):
        with pytest.raises(InputError, match="no trading day"):
            validate(daily(["2024-07-03", date, "2024-07-08"]), contracts["daily"], **of)
    assert validate(daily(["2024-07-03", "2024-07-04", "2024-07-05"]), contracts["daily"], **{**of, "symbol": "DX-Y.NYB"}).waived == []


@pytest.mark.parametrize(("symbol", "day", "known"), [
    ("SPY", "2024-01-03", "2024-01-03 21:00"),  # winter
    ("SPY", "2024-07-01", "2024-07-01 20:00"),  # summer
    ("SPY", "2024-07-03", "2024-07-03 17:00"),  # early close
    ("^VIX", "2024-07-01", "2024-07-01 20:15"),
    ("^VIX", "2024-07-03", "2024-07-03 17:15"),
    ("^VIX", "2026-05-25", "2026-05-25 20:15"),  # New York closed: the regular hour
    ("DX-Y.NYB", "2024-01-03", "2024-01-03 22:00"),
    ("DX-Y.NYB", "2024-07-04", "2024-07-04 21:00"),
])
def test_a_daily_bar_is_known_at_its_own_close(contracts, symbol, day, known):
    index = pd.DatetimeIndex([utc(day)]).as_unit("ms")
    assert known_at(index, contracts["daily"], venue="yahoo", symbol=symbol, timeframe="1d")[0] == utc(known)


def test_when_the_others_are_known(contracts, bars):
    of = {"symbol": "BTCUSDT", "timeframe": "1h"}
    hour = pd.Timedelta("1h")
    assert (known_at(bars.index, contracts["candles"], venue="binance", **of) - bars.index == hour).all()
    assert (known_at(bars.index, contracts["funding"], venue="binanceusdm", **of) == bars.index).all()
    assert (known_at(bars.index, contracts["open_interest"], venue="bybit", **of) == bars.index).all()
    assert (known_at(bars.index, contracts["open_interest"], venue="all-exchanges", **of) - bars.index == hour).all()


def test_late_open_interest_stands_on_a_waiver_or_stops_the_run(contracts):
    times = pd.date_range("2021-05-13 12:00", "2026-03-31 23:00", freq="1h", tz="UTC", unit="ms")
    of = {"venue": "bybit", "timeframe": "1h", "end": utc("2026-03-31 23:00")}
    used = coverage(times, contracts["open_interest"], symbol="XRPUSDT", start=utc("2021-01-01"), **of)
    assert [w.rule for w in used] == ["coverage"] and "2021-05-13" in str(used[0])
    assert coverage(times, contracts["open_interest"], symbol="XRPUSDT", start=utc("2022-01-01"), **of) == []
    with pytest.raises(InputError, match="stored from 2021-05-13 12:00"):
        coverage(times, contracts["open_interest"], symbol="ADAUSDT", start=utc("2021-01-01"), **of)
    with pytest.raises(InputError, match="nothing is stored"):
        coverage(times[:0], contracts["open_interest"], symbol="XRPUSDT", start=utc("2021-01-01"), **of)
    with pytest.raises(InputError, match="ingest more"):
        coverage(times[:5000], contracts["open_interest"], symbol="XRPUSDT", start=utc("2022-01-01"), **of)


def test_two_venues_need_a_waiver(contracts):
    of = {"symbol": "BTCUSDT", "start": utc("2021-01-01"), "end": utc("2026-03-31")}
    assert same_venue(contracts["open_interest"], venue="binanceusdm", price_venue="binanceusdm", **of) is None
    waiver = same_venue(contracts["open_interest"], venue="bybit", price_venue="binanceusdm", **of)
    assert waiver is not None and "Bybit's" in waiver.reason
    with pytest.raises(InputError, match="prices are from binance;"):
        same_venue(contracts["funding"], venue="binanceusdm", price_venue="binance", **of)


@pytest.mark.parametrize(("old", "new", "words"), [
    ("rule: gap", "rule: gaps", "unknown rule 'gaps' (did you mean 'gap'?)"),
    ("naive_times: utc", "naive_time: utc", "naive_time"),
    ("above: 0}", "abov: 0}", "unknown parameter 'abov' (did you mean 'above'?)"),
    ("from: 2018-02-08 00:00", "from: 2018-03-08 00:00", "before it starts"),
    ("from: 2018-02-08 00:00", "from: yesterday at noon", "is not a time"),
    ("granted: 2026-11-21", "granted: soon", "granted"),
    ("kind: candles", "kind: candle", "kind"),
])
def test_a_contract_with_a_mistake_is_refused(tmp_path, old, new, words):
    text = (CONTRACTS / "candles.yaml").read_text()
    assert old in text
    (tmp_path / "candles.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as e:
        load_contract(tmp_path / "candles.yaml")
    assert words in str(e.value) and "candles.yaml" in str(e.value)


def test_a_folder_without_contracts_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no contract"):
        load_contracts(tmp_path)


@pytest.mark.parametrize("kind", ["candles", "funding", "open_interest", "daily", "actions"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9])
def test_every_column_of_every_contract_names_column_row_value_and_rule(contracts, kind, value):
    contract = contracts[kind]
    sample = {"candles": ("binance", "BTCUSDT", "1h", "1h"), "funding": ("binanceusdm", "BTCUSDT", "", "8h"), "open_interest": ("okx", "BTCUSDT", "1h", "1h"),
              "daily": ("yahoo", "SPY", "1d", "1D"), "actions": ("yahoo", "SPY", "1d", "1D")}[kind]
    index = pd.date_range("2024-07-08", periods=5, freq=sample[3], tz="UTC", unit="ms", name="event_time")
    good = pd.DataFrame(dict.fromkeys(contract.columns, 0.01), index=index)
    place = dict(zip(("venue", "symbol", "timeframe"), sample[:3], strict=True))
    validate(good, contract, **place)
    for column, spec in contract.columns.items():
        if np.isnan(value) and spec.nullable:
            continue
        bad = good.assign(**{column: np.where(np.arange(5) == 2, value, 0.01)})
        with pytest.raises(InputError) as said:
            validate(bad, contract, **place)
        rule = "must be a number" if np.isnan(value) else "must be finite"
        assert all(word in str(said.value) for word in ("row 3", f"{column} is {'NaN' if np.isnan(value) else format(value, '.10g')}", rule)), said.value


@pytest.mark.parametrize(("ticker", "close"), [
    ("SPY", "2024-11-29 18:00"), ("BRK-B", "2024-11-29 18:00"), ("^VIX", "2024-11-29 18:15"), ("DX-Y.NYB", "2024-11-29 22:00"),
    ("BMW.DE", "2024-11-29 16:36"), ("7203.T", "2024-11-29 06:30"), ("0700.HK", "2024-11-29 08:00")])
@pytest.mark.parametrize("kind", ["daily", "actions"])
def test_each_ticker_closes_by_its_own_calendar_and_its_actions_with_it(contracts, ticker, close, kind):
    day = pd.DatetimeIndex(["2024-11-29"], tz="UTC")
    assert known_at(day, contracts[kind], venue="yahoo", symbol=ticker, timeframe="1d")[0] == utc(close)


@pytest.mark.parametrize("ticker", ["^FTSE", "^N225", "BTC-USD", "BTC-EUR", "EURUSD=X", "X.IR"])
def test_no_ticker_gets_new_yorks_calendar_by_default(contracts, ticker):
    with pytest.raises(InputError, match="no calendar tells"):
        known_at(pd.DatetimeIndex(["2024-11-29"], tz="UTC"), contracts["daily"], venue="yahoo", symbol=ticker, timeframe="1d")

"""The grid, the joins and the account, each against its plainest definition."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.data.quality import as_of, funding_columns, raw_qa, regular_grid

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


@given(known_h=st.lists(st.integers(0, 40), max_size=12), stale=st.integers(0, 15), shuffle=st.randoms())
@settings(max_examples=60, deadline=None)
def test_as_of_is_the_last_known_value_that_is_fresh(known_h, stale, shuffle):
    rows = sorted(known_h)
    series = pd.DataFrame({"x": np.arange(len(rows), dtype=float), "available_time": from_ms(np.array(rows, dtype="int64") * HOUR)})
    closes = from_ms(np.arange(45) * HOUR)
    expected = []
    for h in range(45):
        past = [i for i, k in enumerate(rows) if k <= h]
        expected.append(float(past[-1]) if past and h - rows[past[-1]] <= stale else np.nan)
    np.testing.assert_array_equal(as_of(closes, series, "x", pd.Timedelta(hours=stale)), expected)
    latest = series.groupby("available_time").tail(1)
    order = list(range(len(latest)))
    shuffle.shuffle(order)
    np.testing.assert_array_equal(as_of(closes, latest.iloc[order], "x", pd.Timedelta(hours=stale)), expected)


def test_a_later_value_changes_nothing_before_it():
    series = pd.DataFrame({"x": np.arange(20.0), "available_time": from_ms(np.arange(20) * 3 * HOUR)})
    closes = from_ms(np.arange(60) * HOUR)
    whole = as_of(closes, series, "x", pd.Timedelta("5h"))
    for n in range(1, 20):
        cut = as_of(closes[: 3 * n], series.iloc[:n], "x", pd.Timedelta("5h"))
        np.testing.assert_array_equal(cut, whole[: 3 * n])


@given(missing=st.sets(st.integers(0, 9)), late_ms=st.integers(0, 900))
@settings(max_examples=60, deadline=None)
def test_funding_events_fall_in_the_bar_that_ends_with_them(missing, late_ms):
    stamps = np.array([8 * k for k in range(1, 11) if k - 1 not in missing], dtype="int64")
    rates = (stamps + 1) * 1e-5
    known_ms = T0 + stamps * HOUR + late_ms
    funding = pd.DataFrame({"funding_rate": rates, "available_time": from_ms(known_ms)}, index=from_ms(known_ms))
    bars = known(make_bars(96))
    columns = funding_columns(bars, funding)
    closes = np.arange(1, 97)
    settled = {int(s) + (late_ms > 0): r for s, r in zip(stamps, rates)}
    for close, event, rate in zip(closes, columns["funding_event"], columns["funding_rate"]):
        past = [s for s in settled if s <= close]
        if close in settled:
            assert event == settled[close] and rate == settled[close]
        elif not past or close - past[-1] > 8:
            assert np.isnan(event)
        elif close - past[-1] < 7:
            assert event == 0.0 and rate == settled[past[-1]]


def test_funding_of_an_empty_series_is_unknown_not_zero():
    bars = known(make_bars(5))
    empty = pd.DataFrame({"funding_rate": np.array([], dtype=float), "available_time": from_ms(np.array([], dtype="int64"))})
    assert funding_columns(bars, empty).isna().all().all()


def test_several_settlements_in_one_bar_add_up():
    stamps = from_ms(T0 + np.array([1, 3, 4]) * HOUR)
    funding = pd.DataFrame({"funding_rate": [1e-4, 2e-4, 4e-4], "available_time": stamps}, index=stamps)
    bars = make_bars(2)
    bars.index = from_ms(T0 + np.array([0, 4]) * HOUR)
    bars["available_time"] = from_ms(T0 + np.array([4, 8]) * HOUR)
    assert funding_columns(bars, funding)["funding_event"].tolist() == [1e-4 + 2e-4 + 4e-4, 0.0]


def test_the_account():
    bars = known(make_bars(48))
    bars.iloc[3, 4] = 0.0
    qa = raw_qa(bars.drop(bars.index[[5, 6, *range(20, 30)]]), "1h", 3, revisions=2, waivers=["why"])
    assert (qa["rows"], qa["gaps"], qa["filled_bars"], qa["missing_bars"], qa["zero_volume_bars"], qa["revisions"]) == (36, 1, 2, 12, 1, 2)
    assert qa["holes"] == [{"after": "2024-01-01T19:00:00Z", "before": "2024-01-02T06:00:00Z", "bars": 10}]
    assert json.loads(json.dumps(qa, allow_nan=False)) == qa and qa["waivers"] == ["why"]


@pytest.mark.data
def test_recorded_funding_is_all_accounted_for(recorded):
    store, _ = recorded
    bars = regular_grid(store.candles("binanceusdm", "SOLUSDT", "1h", "2021-01-01"), "1h", 3)
    funding = store.funding("binanceusdm", "SOLUSDT", "2020-12-31", "2026-03-31 23:00")
    columns = funding_columns(bars, funding)
    assert len(bars) == 45_984 and not bars["is_filled"].any()
    inside = funding[funding["available_time"] > bars.index[0]]
    assert columns["funding_event"].sum() == pytest.approx(inside["funding_rate"].sum(), abs=1e-12)
    assert columns.iloc[:-1].notna().all().all()


@pytest.mark.data
def test_recorded_holes_are_those_of_the_exchange(recorded):
    store, _ = recorded
    qa = raw_qa(store.candles("binance", "BTCUSDT", "1h"), "1h", 3)
    assert (qa["rows"], qa["missing_bars"], qa["zero_volume_bars"]) == (72_166, 122, 3)
    assert {"after": "2018-02-08T00:00:00Z", "before": "2018-02-09T10:00:00Z", "bars": 33} in qa["holes"]

"""Turning points against a plain-Python count of crossings, and the label that is built on them."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from feature_market import clean_market, rough_market
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import LabelParams
from cryptoalgo.features import turning_points as module
from cryptoalgo.features.labels import forward_return, make_labels, turning_point_return
from cryptoalgo.features.registry import FeatureSet
from cryptoalgo.features.turning_points import OSCILLATORS, turning_points

BARS, _ = clean_market(1600)
ROUGH, _ = rough_market(4000)
LEVELS = {"rsi_14": 50.0, "bb_position_20": 0.0, "macd_hist": 0.0, "stoch": 50.0, "di_diff": 0.0}


def oracle(values, least):
    "The definition: rows of five oscillators in, (crosses, direction, turning) out."
    out = []
    for before, now in zip([None, *values], values):
        if before is None or any(math.isnan(x) for x in (*before, *now)):
            out.append((None, 0, False))
            continue
        up = sum(b < level < x for b, x, level in zip(before, now, LEVELS.values()))
        down = sum(x < level < b for b, x, level in zip(before, now, LEVELS.values()))
        turning = up + down >= least
        out.append((up + down, ((up > down) - (up < down)) * turning, turning))
    return out


def equal(found, expected):
    return [(None if math.isnan(a) else a, b, c) for a, b, c in found.itertuples(index=False)] == expected


class Given:
    "Stands in for the registry's features."

    def __init__(self, values):
        self.values = values

    def compute(self, bars):
        return pd.DataFrame(self.values, bars.index, list(LEVELS), dtype="float32")


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(*[st.sampled_from([level - 1, level, level + 1e-3, level + 2, math.nan]) for level in LEVELS.values()]),
                     min_size=1, max_size=12), least=st.integers(1, 5))
def test_any_values_equal_the_plain_definition(rows, least):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "oscillators", lambda timeframe: Given(rows))
        assert equal(turning_points(BARS.iloc[: len(rows)], "1h", least), oracle(rows, least))


@pytest.mark.parametrize("bars", [BARS, ROUGH], ids=["clean", "rough"])
def test_the_oscillators_are_the_registrys(bars):
    values = FeatureSet(tuple(LEVELS), "1h").compute(bars)[list(LEVELS)]
    found = turning_points(bars)
    assert equal(found, oracle(values.to_numpy("float64").tolist(), 3))
    assert found["turning_point"].sum() > 20 and {-1, 1} <= set(found["direction"])
    assert {name: level for name, (_, level) in OSCILLATORS.items()} == LEVELS


def test_live_bars_turn_where_the_history_does():
    fed = FeatureSet(tuple(LEVELS), "1h").stream()
    table = ROUGH[list(fed.features.inputs)].to_numpy()
    live = [dict(zip(fed.features.names, fed.push(int(t.timestamp() * 1000), *row).tolist())) for t, row in zip(ROUGH.index, table)]
    assert equal(turning_points(ROUGH), oracle([[row[name] for name in LEVELS] for row in live], 3))


def test_a_level_stood_on_is_no_side_and_ends_no_crossing():
    def count(*rsi):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "oscillators", lambda timeframe: Given([(x, 1, 1, 60, 1) for x in rsi]))
            return turning_points(BARS.iloc[: len(rsi)], "1h", 1)["crosses"].tolist()[1:]
    assert count(40, 60) == [1] and count(60, 40) == [1]
    assert count(40, 50, 60) == [0, 0]  # neither onto the level nor off it
    assert count(50, 60) == [0]


def test_what_came_before_a_hole_crosses_nothing_after_it():
    reach = FeatureSet(tuple(LEVELS), "1h").lookback
    holed = pd.concat([BARS.iloc[:700], BARS.iloc[720:]])
    assert turning_points(holed)["crosses"].iloc[700 : 701 + reach].isna().all()
    assert turning_points(holed)["crosses"].iloc[701 + reach :].notna().all()


@settings(max_examples=12, deadline=None)
@given(horizon=st.integers(1, 12), vol_bars=st.integers(2, 40), least=st.integers(1, 5), rough=st.booleans())
def test_the_return_after_a_turning_point_equals_the_plain_definition(horizon, vol_bars, least, rough):
    bars = ROUGH if rough else BARS
    labels, found = turning_point_return(bars, "1h", horizon, vol_bars, least), turning_points(bars, "1h", least)
    o, c, filled = bars["open"].tolist(), bars["close"].tolist(), bars["is_filled"].tolist()
    time, known = bars.index.tolist(), bars["available_time"].tolist()
    rng = np.random.default_rng(horizon)
    rows = [*rng.integers(0, len(bars), 150), *np.flatnonzero(found["turning_point"])[:60], len(bars) - horizon, len(bars) - horizon - 1]
    for t in rows:
        got, last = labels.iloc[t], t + horizon
        whole = t >= vol_bars and last < len(bars) and all(known[i] == time[i + 1] for i in range(t - vol_bars, last))
        sigma = statistics.stdev(c[i] / c[i - 1] - 1 for i in range(t - vol_bars + 1, t + 1)) if whole else 0.0
        if not whole or sigma == 0 or filled[t] or filled[t + 1] or filled[last] or math.isnan(found["crosses"].iloc[t]):
            assert got.isna().all()
            continue
        ret = c[last] / o[t + 1] - 1
        assert got["ret"] == pytest.approx(ret, rel=1e-12, abs=1e-15)
        assert got["y"] == (pytest.approx(ret / sigma, rel=1e-7) if found["turning_point"].iloc[t] else 0.0)
        assert (got["t_start"], got["t_end"]) == (time[t + 1], known[last])


def test_zero_rows_have_the_span_and_the_return_of_every_other_row():
    labels, plain = turning_point_return(BARS), forward_return(BARS, 4, 20)
    known = labels["y"].notna()
    assert list(labels) == ["y", "ret", "t_start", "t_end"] and (labels["y"][known] == 0).sum() > 100
    pd.testing.assert_frame_equal(labels.loc[known, ["ret", "t_start", "t_end"]], plain.loc[known, ["ret", "t_start", "t_end"]])
    assert labels[~known].isna().all(axis=None)


def test_parameters_ask_for_it_and_the_bars_say_how_long_they_are():
    asked = LabelParams(kind="turning_point_return", horizon_bars=4, up_sigma=1, down_sigma=1, vol_bars=20, least_crosses=2)
    assert make_labels(BARS, asked).equals(turning_point_return(BARS, "1h", 4, 20, 2))
    quarters = pd.date_range("2024-01-01", periods=len(BARS), freq="15min", tz="UTC", unit="ms", name="event_time")
    short = BARS.set_index(quarters).assign(available_time=quarters + pd.Timedelta("15min"))
    assert make_labels(short, asked).equals(turning_point_return(short, "15m", 4, 20, 2))
    with pytest.raises(InputError, match="bars of 1000 ms"):
        make_labels(short.assign(available_time=quarters + pd.Timedelta("1s")), asked)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: turning_points(BARS, least=0), "least = 0"),
    (lambda: turning_points(BARS, "1x"), "timeframe '1x'"),
    (lambda: turning_point_return(BARS, horizon_bars=0), "horizon_bars = 0"),
    (lambda: turning_point_return(BARS.drop(columns="low")), "column 'low'"),
])
def test_bad_input_names_value_and_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call()

"""Longer bars against the plainest definition, against the simulator's own, and against the venue's own."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.resample import check_whole, finest, resample
from cryptoalgo.data.simulate import simulate

MINUTE, HOUR = 60_000, 3_600_000


def oracle(bars, step, span, max_hole):
    "Bar by bar: the rows of each grid cell, unless the cell is cut by an end of the series or by a long hole."
    times = to_ms(bars.index).tolist()
    made = {}
    for i, (t, row) in enumerate(zip(times, bars.itertuples())):
        cell = t // span * span
        gap_before = np.inf if i == 0 else t - times[i - 1] - step
        gap_after = np.inf if i == len(times) - 1 else times[i + 1] - t - step
        cut = (gap_before > max_hole and t != cell) or (gap_after > max_hole and t + step != cell + span)
        known = made.setdefault(cell, {"rows": [], "cut": False})
        known["rows"].append(row), known.update(cut=known["cut"] or cut)
    whole = {cell: c["rows"] for cell, c in made.items() if not c["cut"]}
    return pd.DataFrame({
        "open": [r[0].open for r in whole.values()], "high": [max(x.high for x in r) for r in whole.values()],
        "low": [min(x.low for x in r) for r in whole.values()], "close": [r[-1].close for r in whole.values()],
        "volume": [sum(x.volume for x in r) for r in whole.values()]}, index=from_ms(np.array(list(whole), dtype="int64")), dtype="float64")


@given(seed=st.integers(0, 50), keep=st.lists(st.floats(0, 1), min_size=120, max_size=120), start=st.integers(0, 15),
       share=st.sampled_from([0.6, 0.9, 1.0]), max_gap_h=st.sampled_from([0, 0.5, 2]), pair=st.sampled_from([("15m", "1h"), ("15m", "4h"), ("30m", "1h")]))
@settings(max_examples=120, deadline=None)
def test_bars_equal_the_oracle(seed, keep, start, share, max_gap_h, pair):
    fine, coarse = pair
    step, span = {"15m": 15, "30m": 30}[fine] * MINUTE, {"1h": 1, "4h": 4}[coarse] * HOUR
    rng = np.random.default_rng(seed)
    times = (1_704_067_200_000 // step + start + np.arange(120)) * step
    close = 100 + rng.normal(0, 1, 120).cumsum()
    bars = pd.DataFrame({"open": close + 0.1, "high": close + 1, "low": close - 1, "close": close, "volume": rng.uniform(0, 5, 120),
                         "available_time": from_ms(times + step)}, index=from_ms(times))[np.array(keep) < share]
    made = resample(bars, fine, coarse, max_gap_h)
    expected = oracle(bars, step, span, max_gap_h * HOUR)
    pd.testing.assert_frame_equal(made.drop(columns="available_time"), expected, rtol=1e-12, check_freq=False)
    assert (to_ms(made["available_time"]) - to_ms(made.index) == span).all()


def test_simulated_bars_of_every_timeframe_are_each_other_s():
    params = SimulatorParams(seed=9, days=40)
    bars = {tf: simulate(params, ["ETH"], tf).bars["ETH"].drop(columns="is_filled") for tf in ("15m", "1h", "4h")}
    for fine, coarse in (("15m", "1h"), ("1h", "4h"), ("15m", "4h")):
        pd.testing.assert_frame_equal(resample(bars[fine], fine, coarse), bars[coarse], check_freq=False, rtol=1e-12)


@pytest.mark.data
@pytest.mark.parametrize("coin", ["BTC", "ETH", "SOL", "XRP"])
def test_recorded_quarters_make_the_venue_s_own_hours(recorded, coin):
    "Prices to the bit, volume to the last place; no hour is made that the venue does not have, and those left out are named."
    store, _ = recorded
    made = resample(store.candles("binance", f"{coin}USDT", "15m"), "15m", "1h", max_gap_h=6)
    own = store.candles("binance", f"{coin}USDT", "1h", made.index[0], made.index[-1])
    assert made.index.isin(own.index).all() and len(made) > 9_000
    assert len(own) - len(made) == (49 if coin == "BTC" else 0)  # the 15m recording of BTC has a hole of 49 hours
    both = own.loc[made.index]
    for column in ("open", "high", "low", "close", "available_time"):
        np.testing.assert_array_equal(made[column], both[column])
    np.testing.assert_allclose(made["volume"], both["volume"], rtol=1e-15)


def test_refusals():
    with pytest.raises(InputError, match="a whole number of them"):
        check_whole("1h", "90m")
    with pytest.raises(InputError, match="cannot be made"):
        check_whole("4h", "1h")
    assert finest("4h", ["1h", "2h", "4h", "1d"]) == "2h" and finest("15m", ["1h"]) is None

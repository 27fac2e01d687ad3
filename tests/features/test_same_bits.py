"""The whole registry on recorded and simulated markets, at three timeframes: batch, later starts and single bars agree bit for bit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feature_market import same_bits

from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.quality import regular_grid
from cryptoalgo.data.resample import resample
from cryptoalgo.data.simulate import simulate
import cryptoalgo.features.catalogue  # noqa: F401
from cryptoalgo.features.context import market_context
from cryptoalgo.features.registry import FeatureSet

COST = 0.0014
TICKERS = ("SPY", "QQQ", "^VIX", "DX-Y.NYB", "GLD", "TLT")


def together(closes: dict[str, pd.DataFrame]) -> pd.DataFrame:
    "Daily closes of several tickers in one frame."
    rows = pd.concat([f[["close", "available_time"]].assign(ticker=t) for t, f in closes.items()])
    return rows.sort_values("available_time", kind="stable")


def recorded(folder: Path, coin: str, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    "The last n hours of a recorded perpetual and what stood beside it."

    def frame(path: str, after: str | None) -> pd.DataFrame:
        table = pd.read_parquet(folder / path)
        index = pd.DatetimeIndex(table.pop("timestamp"), name="event_time").as_unit("ms")
        return table.set_index(index).assign(available_time=index + pd.Timedelta(after or "0h"))

    perps = {c: frame(f"ohlcv-perp/binance/{c}USDT-1h.parquet", "1h").iloc[-n:].assign(is_filled=False) for c in (coin, "BTC")}
    names = {"^VIX": "VIX", "DX-Y.NYB": "DXY"}
    macro = together({t: frame(f"macro/{names.get(t, t)}.parquet", "21h") for t in TICKERS})
    funding, interest = frame(f"funding/binance/{coin}USDT.parquet", None), frame(f"open-interest/bybit/{coin}USDT-1h.parquet", None)
    bars = regular_grid(perps[coin], "1h", 3)
    return bars, market_context(bars, funding, interest, perps["BTC"], macro, COST)


def simulated(timeframe: str, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    "The last n bars of a simulated coin, a hole of two days in them."
    market = simulate(SimulatorParams(seed=9, days=n * pd.Timedelta(timeframe) // pd.Timedelta("1D") + 40), ["SOL", "BTC"], timeframe)
    bars = market.bars["SOL"].iloc[-n:]
    hole = n // 5
    bars = pd.concat([bars.iloc[:hole], bars.iloc[hole + int(pd.Timedelta("2D") / pd.Timedelta(timeframe)):]])
    return bars, market_context(bars, market.funding["SOL"], market.open_interest["SOL"], market.bars["BTC"], together(market.macro), COST)


def check(timeframe: str, bars: pd.DataFrame, context: pd.DataFrame) -> np.ndarray:
    "Later starts, an earlier end and single bars against the batch, at each column's own look-back; returns the batch."
    features = FeatureSet(timeframe=timeframe)
    whole = features.compute(bars, context)
    lookback = np.array([f.lookback for f in features.features])
    for cut in (1, 333, len(bars) // 3, len(bars) - features.lookback - 200):
        part = features.compute(bars.iloc[cut:], context.iloc[cut:])
        ready = np.arange(len(part))[:, None] >= lookback
        same = same_bits(part, whole.iloc[cut:]) | ~ready
        assert same.all(), f"{features.names[np.flatnonzero(~same.all(axis=0))[0]]} begun at row {cut}"
    end = len(bars) - 77
    assert same_bits(features.compute(bars.iloc[:end], context.iloc[:end]), whole.iloc[:end]).all()
    stream, values = features.stream(), bars.join(context)[list(features.inputs)].to_numpy()
    times = bars.index.asi8 if bars.index.unit == "ms" else bars.index.as_unit("ms").asi8
    rows = np.array([stream.push(int(t), *v).copy() for t, v in zip(times, values)])
    assert same_bits(rows, whole).all()
    return whole.to_numpy()


@pytest.mark.parametrize("coin", ["ETH", "DOGE"])
def test_recorded_hours(data_dir, coin):
    whole = check("1h", *recorded(data_dir, coin, 7_000))
    assert np.isfinite(whole[-1]).all()  # every feature of a recorded market is known at its end


def test_recorded_hours_as_bars_of_four(data_dir):
    bars, context = recorded(data_dir, "XRP", 4 * 4_000)
    long = resample(bars, "1h", "4h").assign(is_filled=False)
    check("4h", long, context.reindex(long.index + pd.Timedelta("3h")).set_axis(long.index))


@pytest.mark.parametrize(("timeframe", "n"), [("15m", 6_000), ("1h", 5_000), ("4h", 4_000)])
def test_simulated_bars_with_a_hole(timeframe, n):
    check(timeframe, *simulated(timeframe, n))


@pytest.mark.parametrize("timeframe", ["15m", "1h", "4h"])
def test_fewer_bars_than_the_look_back_are_nan_and_never_a_number(timeframe):
    bars, context = simulated(timeframe, 400)
    features = FeatureSet(timeframe=timeframe)
    table = features.compute(bars, context)
    for f in features.features:
        if f.lookback >= len(bars):
            assert table[f.name].isna().all(), f.name

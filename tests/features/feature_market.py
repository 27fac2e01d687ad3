"""Hourly bars with everything that goes wrong in them, from a seed: holes, filled and flat stretches, no volume, no funding."""

import numpy as np
import pandas as pd


def clean_market(n: int, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    "(bars, context) of n hours without any defect."
    rng = np.random.default_rng(seed)
    vol = 0.006 * np.exp(0.5 * np.sin(np.arange(n) / 300) + rng.normal(0, 0.2, n))
    close = 30_000 * np.exp(np.cumsum(vol * rng.standard_t(4, n)))
    open_ = np.r_[30_000, close[:-1]] * (1 + 1e-4 * rng.normal(size=n))
    index = pd.date_range("2023-03-05 05:00", periods=n, freq="h", tz="UTC", unit="ms", name="event_time")
    bars = pd.DataFrame({
        "open": open_, "high": np.maximum(open_, close) * (1 + vol * rng.exponential(0.5, n)),
        "low": np.minimum(open_, close) * (1 - vol * rng.exponential(0.5, n)), "close": close,
        "volume": rng.lognormal(3, 1, n), "available_time": index + pd.Timedelta("1h"), "is_filled": False}, index=index)
    rate = np.repeat(rng.normal(1e-4, 1e-4, n // 8 + 1), 8)[:n]
    context = pd.DataFrame({
        "funding_rate": rate, "funding_event": np.where(index.hour % 8 == 7, rate, 0.0),
        "open_interest": 1e5 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))}, index=index)
    return bars, context.assign(**_elsewhere(n, seed, np.diff(np.log(close), prepend=np.log(close[0]))))


def _elsewhere(n: int, seed: int, moves: np.ndarray) -> dict[str, np.ndarray]:
    "Bitcoin, which moves with the coin; levels that change once a day; a fee that was cut half-way."
    rng = np.random.default_rng(seed + 100)
    daily = {"spy": (400, 0.01), "qqq": (300, 0.014), "vix": (17, 0.06), "dxy": (100, 0.004), "gld": (170, 0.009), "tlt": (140, 0.008)}
    days = n // 24 + 1
    levels = {name: np.repeat(start * np.exp(np.cumsum(rng.normal(0, spread, days))), 24)[:n] for name, (start, spread) in daily.items()}
    btc = 40_000 * np.exp(np.cumsum(0.6 * moves + rng.normal(0, 0.004, n)))
    return {"btc_close": btc, **levels, "round_trip_cost": np.where(np.arange(n) < n * 3 // 4, 0.0014, 0.0012)}


def rough_market(n: int, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    "The same with filled holes, a flat stretch, no volume, missing funding and open interest, and two holes in the grid."
    bars, context = clean_market(n, seed)
    rng = np.random.default_rng(seed + 1)
    at = {name: bars.columns.get_loc(name) for name in bars}
    for start in rng.integers(10, n - 10, 12):  # short holes, filled flat
        rows = slice(start, start + rng.integers(1, 5))
        bars.iloc[rows, :4] = bars.iloc[start - 1, at["close"]]
        bars.iloc[rows, at["volume"]], bars.iloc[rows, at["is_filled"]] = 0.0, True
    bars.iloc[n // 3 : n // 3 + 250, :4] = bars.iloc[n // 3, at["close"]]  # a price that stands still
    bars.iloc[n // 2 : n // 2 + 100, at["volume"]] = 0.0
    context.iloc[n // 4 : n // 4 + 90, :2] = np.nan
    context.iloc[: n // 5, 2] = np.nan
    context.iloc[n // 2 + 400 : n // 2 + 430, 3] = np.nan  # Bitcoin is silent
    context.iloc[-n // 5 : -n // 5 + 100, 4:10] = np.nan  # and so are the slow markets
    keep = np.ones(n, bool)
    keep[n // 10 : n // 10 + 37] = keep[-n // 8 : -n // 8 + 5] = False
    return bars[keep], context[keep]


def same_bits(a: pd.DataFrame | np.ndarray, b: pd.DataFrame | np.ndarray) -> np.ndarray:
    "Elementwise: the same float32, zeros of either sign told apart, or both NaN."
    a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    return (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))

"""Random markets for the property tests, as plain values; the same values go to the oracle and to the engine."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms
from cryptoalgo.trading.engine import EngineConfig, backtest

from .oracle import HOUR

SYMBOLS = ["AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT"]


def candles(rng: np.random.Generator, n: int, start: int) -> list[dict]:
    "Rough prices on a coarse tick, so that barriers are touched exactly and opens gap; some bars missing, some marked filled."
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.02, n))), 1)
    open_ = np.round(np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.01, n) * (rng.random(n) < 0.3)), 1)
    up, down = rng.exponential(0.015, (2, n))
    high, low = np.round(np.maximum(open_, close) * (1 + up), 1), np.round(np.minimum(open_, close) / (1 + down), 1)
    keep = rng.random(n) > 0.08
    keep[[0, 1, -1]] = True
    marked = rng.random(n) < 0.03
    marked[0] = marked[-1] = False
    return [{"time": start + i * HOUR, "open": float(open_[i]), "high": float(high[i]), "low": float(low[i]), "close": float(close[i]),
             "filled": bool(marked[i])} for i in range(n) if keep[i]]


def frame(coin: list[dict]) -> pd.DataFrame:
    df = pd.DataFrame(coin)
    df.index = from_ms(df["time"].to_numpy())
    return df[["open", "high", "low", "close"]].assign(volume=1.0, is_filled=df["filled"].to_numpy())


def events_frame(events: list[tuple[int, float]]) -> pd.DataFrame:
    return pd.DataFrame({"funding_rate": [r for _, r in events]}, index=from_ms(np.array([t for t, _ in events], "int64")), dtype=float)


@st.composite
def cases(draw, coins=st.integers(1, 5)):
    "Bars, funding events, decisions and configurations."
    n_coins, seed = draw(coins), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    symbols = SYMBOLS[:n_coins]
    n = int(rng.integers(60, 140))
    start = 1_700_000_000_000 // HOUR * HOUR
    bars, events = {}, {}
    for s in symbols:
        late, early = (int(x) for x in rng.integers(0, 12, 2))
        bars[s] = candles(rng, n - late - early, start + late * HOUR)
        stamps = {start + int(x) * HOUR + int(off) for x, off in zip(rng.integers(-3, n + 3, n // 4), rng.choice([0, 0, 1, 1_800_000, HOUR - 1], n // 4))}
        events[s] = [(t, float(rng.normal(1e-4, 1e-3))) for t in sorted(stamps)]
    if draw(st.booleans()):
        events.pop(symbols[-1])
    profile = {"profile": True, "position_size": 0.15, "vol_target": 0.025, "leverage": 4.0}
    size = draw(st.sampled_from([{"notional_usd": 1000.0}, {"contracts": 3.0}, profile, profile | {"max_weekly_growth": 0.03}]))
    account = {"max_positions": draw(st.sampled_from([None, 1, 2, 3])), "initial_equity_usd": draw(st.sampled_from([100_000.0, 2_000.0]))}
    multiples, rare = st.sampled_from([None, 0.3, 1.0, 2.5]), st.sampled_from([None, None, 0.5, 1.5])
    margin = draw(st.sampled_from([(None, None)] * 3 + [(2.0, 0.05), (None, 0.01), (10.0, 0.005), (30.0, 0.02)]))
    configs = {s: {"fee_bps": draw(st.sampled_from([0.0, 5.0, 40.0])), "slippage_bps": draw(st.sampled_from([0.0, 2.0, 150.0])),
                   "min_fee_usd_per_contract": draw(st.sampled_from([0.0, 0.2])), "contract_units": draw(st.sampled_from([1.0, 0.01, 5.0])),
                   "vol_mult_tp": draw(multiples), "vol_mult_sl": draw(multiples), "max_hold_bars": draw(st.sampled_from([None, 1, 2, 5, 20])),
                   "breakeven_sigma": draw(rare), "trail_sigma": draw(rare), "ambiguity": draw(st.sampled_from(["worst", "best"])),
                   "leverage": margin[0], "maintenance_margin": margin[1], "min_notional_usd": draw(st.sampled_from([0.0, 0.0, 700.0, 1500.0])),
                   "max_correlation": draw(st.sampled_from([None, None, 0.1, -0.3])), "correlation_bars": draw(st.sampled_from([5, 12])),
                   "cooldown_bars": draw(st.sampled_from([0, 0, 1, 4])), "flip_exit": draw(st.booleans()), "size": size, **account}
               for s in symbols}
    density = draw(st.sampled_from([0.05, 0.3, 1.0]))
    decisions = []
    for s in symbols:
        first, last = bars[s][0]["time"], bars[s][-1]["time"]
        for t in range(first, last + HOUR, HOUR):  # holes included: nothing is decided there
            if rng.random() < density:
                decisions.append({"time": t, "symbol": s, "side": int(rng.choice([-1, 1])),
                                  "rank": None if rng.random() < 0.3 else int(rng.integers(1, 4)),
                                  "vol": float(rng.uniform(0.005, 0.05)) if rng.random() < 0.2 else None})
    return bars, events, decisions, configs


def decisions_frame(decisions: list[dict]) -> pd.DataFrame:
    df = pd.DataFrame(decisions, columns=["time", "symbol", "side", "rank", "vol"])
    df["event_time"] = from_ms(df.pop("time").to_numpy("int64"))
    return df.astype({"rank": float, "vol": float})


def run_engine(bars, events, decisions, configs):
    return backtest({s: frame(b) for s, b in bars.items()}, decisions_frame(decisions), {s: events_frame(e) for s, e in events.items()},
                    {s: EngineConfig.model_validate(c) for s, c in configs.items()})

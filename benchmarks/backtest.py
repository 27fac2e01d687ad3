"""One coin, 50,000 hourly bars, one thread: bars x combinations per second beside vectorbt's `from_signals`, in one run.

    python benchmarks/backtest.py [--peers DIR] [--runs 9] [--out docs/benchmarks]

Ours walks stops, targets, time exit, cool-down, fees, slippage and recorded funding, and keeps every trade with its
parts and reason, the outcome of every decision and the account at every close. vectorbt walks stops, targets, fees and
slippage, and keeps the orders. DIR holds the peers' bare bar walk `bt_nb.py` (default: $CRYPTOALGO_PEERS), the practical
limit: no records, only final equity, trades and drawdown.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import vectorbt as vbt  # noqa: E402

from cryptoalgo.trading import kernel as k  # noqa: E402
from cryptoalgo.trading.engine import EngineConfig, read_config, simulate, walk  # noqa: E402
from cryptoalgo.trading.market import Prepared, prepare  # noqa: E402

N, COLUMNS, VOL = 50_000, 100, 0.01
GRID = [(x, sl, tp) for x in np.linspace(0.5, 2.0, 4) for sl in np.linspace(0.01, 0.05, 5) for tp in np.linspace(0.02, 0.1, 5)]
MIDDLE = GRID[62]


def market(n: int, seed: int = 20240917) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    "(bars, funding, signal): clustered volatility, funding every eight hours, a 14-bar momentum in its own deviations."
    rng = np.random.default_rng(seed)
    vol = 0.008 * np.exp(np.convolve(rng.normal(0, 0.5, n + 99), np.full(100, 0.1), "valid") * 0.3)
    close = 30_000 * np.exp(np.cumsum(vol * rng.standard_t(5, n)))
    open_ = np.r_[30_000, close[:-1]]
    index = pd.date_range("2020-01-01", periods=n, freq="h", tz="UTC", unit="ms", name="event_time")
    bars = pd.DataFrame({"open": open_, "high": np.maximum(open_, close) * (1 + vol * rng.exponential(0.5, n)),
                         "low": np.minimum(open_, close) / (1 + vol * rng.exponential(0.5, n)), "close": close}, index=index)
    momentum = bars["close"].pct_change(14)
    signal = (momentum / momentum.rolling(500).std()).fillna(0.0).to_numpy()
    return bars, pd.DataFrame({"funding_rate": rng.normal(1e-4, 1e-4, len(index[::8]))}, index=index[::8]), signal


def config(sl: float, tp: float) -> EngineConfig:
    return read_config({"fee_bps": 5, "slippage_bps": 2, "vol_mult_sl": sl / VOL, "vol_mult_tp": tp / VOL, "max_hold_bars": 48,
                        "cooldown_bars": 1, "size": {"notional_usd": 10_000}})


def decisions(signal: np.ndarray, threshold: float) -> k.Decisions:
    bar = np.flatnonzero(signal > threshold)
    return k.Decisions(bar, np.zeros(bar.size, np.int64), np.ones(bar.size, np.int64), np.full(bar.size, VOL))


def ours(prepared: Prepared, due: dict[float, k.Decisions], combos: list[tuple], configs: dict[tuple, EngineConfig]) -> Callable[[], int]:
    return lambda: sum(len(walk(prepared, due[x], configs[sl, tp]).trades) for x, sl, tp in combos)


def theirs(bars: pd.DataFrame, signal: np.ndarray, combos: list[tuple]) -> Callable[[], int]:
    "The same entries one bar later at the open, the same stops and targets, fees and slippage; orders are kept."
    bars = bars.set_axis(pd.date_range("2020-01-01", periods=N, freq="1h"))  # an index with a zone costs it 50 ms more
    above = np.column_stack([np.r_[False, signal[:-1] > x] for x, _, _ in combos])
    entries = pd.DataFrame(above, index=bars.index, columns=pd.RangeIndex(len(combos))).squeeze(axis=1)
    stops, targets = (np.array([c[i] for c in combos]).squeeze() for i in (1, 2))

    def call() -> int:
        portfolio = vbt.Portfolio.from_signals(
            bars["close"], entries, False, price=bars["open"], open=bars["open"], high=bars["high"], low=bars["low"], sl_stop=stops,
            tp_stop=targets, fees=5e-4, slippage=2e-4, init_cash=1e6, size=0.1, freq="1h", max_orders=N * len(combos) // 4)
        return len(portfolio.order_records) // 2
    return call


def bare(folder: str | None, bars: pd.DataFrame, prepared: Prepared, signal: np.ndarray) -> dict[str, tuple[Callable, int]]:
    if not folder:
        return {}
    sys.path.insert(0, str(Path(folder).resolve()))
    import bt_nb

    price = [bars[c].to_numpy(copy=True) for c in ("open", "high", "low", "close")]
    rates, calls = prepared.market.funding_at_open[:, 0].copy(), {}
    for combos in ([MIDDLE], GRID):
        grid, out = np.array([(*c, 48) for c in combos]), np.empty((len(combos), 3))

        def call(grid=grid, out=out) -> int:
            bt_nb.bars(*price, rates, signal, grid, 7e-4, out)
            return int(out[:, 1].sum())
        calls[f"bare bar walk of the peers, {len(combos)}"] = (call, len(combos))
    return calls


def timed(calls: dict[str, Callable], runs: int) -> dict[str, float]:
    "Median seconds of each call; the calls take turns, so that a busy moment hits them alike."
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            gc.collect()
            call()  # the others have emptied the processor's caches
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peers", default=os.environ.get("CRYPTOALGO_PEERS"))
    options.add_argument("--runs", type=int, default=9)
    options.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
    args = options.parse_args()
    bars, funding, signal = market(N)
    prepared = prepare({"X": bars}, {"X": funding})
    due = {x: decisions(signal, x) for x in {c[0] for c in GRID}}
    configs = {c[1:]: config(*c[1:]) for c in GRID}
    bar = due[MIDDLE[0]].bar
    table = pd.DataFrame({"event_time": bars.index[bar], "side": 1, "vol": VOL})
    calls = {
        "ours, 1": (ours(prepared, due, [MIDDLE], configs), 1),
        f"ours, {COLUMNS}": (ours(prepared, due, GRID, configs), COLUMNS),
        "ours, 1, frames in and out": (lambda: len(simulate(prepared, table, configs[MIDDLE[1:]]).trades), 1),
        "vectorbt from_signals, 1": (theirs(bars, signal, [MIDDLE]), 1),
        f"vectorbt from_signals, {COLUMNS}": (theirs(bars, signal, GRID), COLUMNS),
    } | bare(args.peers, bars, prepared, signal)
    n_trades = {name: call() for name, (call, _) in calls.items()}  # compiles
    seconds = timed({name: call for name, (call, _) in calls.items()}, args.runs)
    rate = {name: N * combos / seconds[name] for name, (_, combos) in calls.items()}

    lines = ["# Backtest", "", f"One coin, {N:,} hourly bars, one thread, median of {args.runs} runs taken in turns; {platform.machine()}, "
             f"Python {platform.python_version()}, vectorbt {vbt.__version__}. The number in a name is how many combinations of threshold, "
             "stop and target were run. Ours includes funding, a time exit, cool-down, reasons and the account at every close.", "",
             "| what | ms | bars × combinations / s | × vectorbt | trades |", "|---|---:|---:|---:|---:|"]
    for name, (_, combos) in calls.items():
        base = rate[f"vectorbt from_signals, {combos}"]
        lines.append(f"| {name} | {1e3 * seconds[name]:.3g} | {rate[name]:.3g} | {rate[name] / base:.1f} | {n_trades[name]:,} |")
    print("\n".join(lines))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "backtest.md").write_text("\n".join(lines) + "\n")
    record = {"bars": N, "rows": {name: {"combinations": combos, "seconds": seconds[name], "rate": rate[name], "trades": n_trades[name]}
                                  for name, (_, combos) in calls.items()}}
    (args.out / "backtest.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

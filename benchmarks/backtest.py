"""One coin, 50,000 hourly bars, one thread: one combination, grids of 1,000, and memory, beside the peers, in one run.

    python benchmarks/backtest.py [--peers DIR] [--runs 7] [--out docs/benchmarks]

Ours walks stops, targets, time exit, cool-down, fees, slippage and recorded funding. Recorded, it keeps every trade with
its parts and reason, the outcome of every decision and the account at every close; in a grid it keeps scalars. vectorbt
walks stops, targets, fees and slippage, and keeps the orders. DIR holds the peers' bare loops `bt_nb.py` (default:
$CRYPTOALGO_PEERS), the practical limit: no records, only final equity, trades and drawdown.

Rates are bars x combinations a second of processor time, medians of calls that take turns. Memory is the highest
resident size of a process of its own that does nothing else.
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from cryptoalgo.trading import kernel as k  # noqa: E402
from cryptoalgo.trading.config import EngineConfig, read_config  # noqa: E402
from cryptoalgo.trading.engine import grid, simulate, walk  # noqa: E402
from cryptoalgo.trading.grid import product  # noqa: E402
from cryptoalgo.trading.market import Prepared, prepare  # noqa: E402

N, VOL, HOLD, SLOW = 50_000, 0.01, 48, 2  # SLOW: turns of calls that take seconds
LEVELS, STOPS, TARGETS = np.linspace(0.3, 2.1, 10), np.linspace(0.005, 0.05, 10), np.linspace(0.01, 0.1, 10)
GRID = [(x, sl, tp) for x in LEVELS for sl in STOPS for tp in TARGETS]
MIDDLE = (LEVELS[5], STOPS[4], TARGETS[4])
COINS = "ABCDE"


class Call(NamedTuple):
    "Something to time."
    run: Callable[[], int]  # answers with its number of trades
    combinations: int = 1
    turns: int | None = None  # fewer than asked for, where it takes seconds
    coins: int = 1


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


def config(sl: float, tp: float, **keys: Any) -> EngineConfig:
    return read_config({"fee_bps": 5, "slippage_bps": 2, "vol_mult_sl": sl / VOL, "vol_mult_tp": tp / VOL, "max_hold_bars": HOLD,
                        "size": {"notional_usd": 10_000}} | keys)


def decisions(signal: np.ndarray, threshold: float, coin: int = 0) -> k.Decisions:
    bar = np.flatnonzero(signal > threshold)
    return k.Decisions(bar, np.full(bar.size, coin), np.ones(bar.size, np.int64), np.full(bar.size, VOL))


# --- ours


class Ours(NamedTuple):
    "The market of all our calls."
    prepared: Prepared
    sets: dict[float, k.Decisions]
    axes: pd.DataFrame  # 1,000 combinations

    def by_tables(self) -> pd.DataFrame:
        return grid(self.prepared, self.sets, config(*MIDDLE[1:]), self.axes)

    def by_kernel(self) -> pd.DataFrame:
        "A long at leverage 1 is never liquidated: the same trades, under a rule that tables cannot express."
        return grid(self.prepared, self.sets, config(*MIDDLE[1:], leverage=1, maintenance_margin=0), self.axes)

    def same(self) -> dict[str, Any]:
        "Do tables and kernel come to the same trades?"
        tables, kernel = self.by_tables(), self.by_kernel()
        assert set(tables["by"]) == {"tables"} and set(kernel["by"]) == {"kernel"}
        counts = ["n_trades", "n_wins", "n_stops", "n_both_touched", "held_bars"]
        return {"same_counts": bool((tables[counts] == kernel[counts]).all(axis=None)),
                "net_differs_by": float((tables["net"] / kernel["net"] - 1).abs().max()),
                "sharpe_differs_by": float((tables["sharpe_daily"] - kernel["sharpe_daily"]).abs().max())}


def ours_on(bars: pd.DataFrame, funding: pd.DataFrame, signal: np.ndarray) -> Ours:
    axes = product(decisions=LEVELS.tolist(), vol_mult_sl=(STOPS / VOL).tolist(), vol_mult_tp=(TARGETS / VOL).tolist())
    return Ours(prepare({"X": bars}, {"X": funding}), {x: decisions(signal, x) for x in LEVELS.tolist()}, axes)


def joint() -> Callable[[], int]:
    "Five coins of one account, at most three positions."
    markets = {s: market(N, seed) for seed, s in enumerate(COINS)}
    prepared = prepare({s: m[0] for s, m in markets.items()}, {s: m[1] for s, m in markets.items()})
    parts = [decisions(m[2], MIDDLE[0], coin) for coin, m in enumerate(markets.values())]
    order = np.lexsort((np.concatenate([p.coin for p in parts]), np.concatenate([p.bar for p in parts])))
    all_of_them = k.Decisions(*(np.concatenate(columns)[order] for columns in zip(*(p[:4] for p in parts))))
    settings = config(*MIDDLE[1:], max_positions=3)
    return lambda: len(walk(prepared, all_of_them, settings).trades)


def our_calls(ours: Ours, bars: pd.DataFrame) -> dict[str, Call]:
    one, due = config(*MIDDLE[1:]), ours.sets[MIDDLE[0]]
    table = pd.DataFrame({"event_time": bars.index[due.bar], "side": 1, "vol": VOL})
    moving = ours.axes.assign(trail_sigma=3.0)
    return {
        "ours, recorded, 1": Call(lambda: len(walk(ours.prepared, due, one).trades)),
        "ours, frames in and out, 1": Call(lambda: len(simulate(ours.prepared, table, one).trades)),
        "ours, 5 coins in one account, recorded, 1": Call(joint(), coins=len(COINS)),
        "ours, grid by tables, 1,000": Call(lambda: int(ours.by_tables()["n_trades"].sum()), 1000),
        "ours, grid by the kernel, 1,000": Call(lambda: int(ours.by_kernel()["n_trades"].sum()), 1000),
        "ours, grid with trailing stops (kernel), 1,000": Call(
            lambda: int(grid(ours.prepared, ours.sets, one, moving)["n_trades"].sum()), 1000),
    }


# --- the peers


def vectorbt_call(bars: pd.DataFrame, signal: np.ndarray, combos: list[tuple], stats: bool = False) -> Callable[[], int]:
    "The same entries one bar later at the open, the same stops and targets, fees and slippage; orders are kept."
    import vectorbt as vbt

    bars = bars.set_axis(pd.date_range("2020-01-01", periods=N, freq="1h"))  # an index with a zone costs it 50 ms more
    above = np.column_stack([np.r_[False, signal[:-1] > x] for x, _, _ in combos])
    entries = pd.DataFrame(above, index=bars.index, columns=pd.RangeIndex(len(combos))).squeeze(axis=1)
    stops, targets = (np.array([c[i] for c in combos]).squeeze() for i in (1, 2))

    def call() -> int:
        portfolio = vbt.Portfolio.from_signals(
            bars["close"], entries, False, price=bars["open"], open=bars["open"], high=bars["high"], low=bars["low"], sl_stop=stops,
            tp_stop=targets, fees=5e-4, slippage=2e-4, init_cash=1e6, size=0.1, freq="1h", max_orders=N * len(combos) // 8)
        if stats:
            portfolio.stats()
        return len(portfolio.order_records) // 2
    return call


def backtesting_call(bars: pd.DataFrame, signal: np.ndarray) -> Callable[[], int]:
    import backtesting.backtesting as library
    from backtesting import Backtest, Strategy

    library._tqdm = lambda x, **_: x  # no progress bar
    threshold, sl, tp = MIDDLE
    data = bars.rename(columns=str.title).assign(Volume=1.0, Signal=signal).tz_localize(None)

    class Momentum(Strategy):
        def init(self) -> None:
            self.signal = self.I(lambda: self.data.Signal, plot=False)

        def next(self) -> None:
            if self.position:
                if len(self.data) - self.trades[0].entry_bar >= HOLD:
                    self.trades[0].close()
            elif self.signal[-1] > threshold:
                price = self.data.Close[-1]
                self.buy(size=1, sl=price * (1 - sl), tp=price * (1 + tp))

    def call() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(Backtest(data, Momentum, cash=1e9, commission=7e-4).run()["# Trades"])
    return call


def bare_calls(folder: str | None, bars: pd.DataFrame, prepared: Prepared, signal: np.ndarray) -> dict[str, Call]:
    if not folder:
        return {}
    sys.path.insert(0, str(Path(folder).resolve()))
    import bt_nb

    price = [bars[c].to_numpy(copy=True) for c in ("open", "high", "low", "close")]
    rates, calls = prepared.market.funding_at_open[:, 0].copy(), {}
    for combos in ([MIDDLE], GRID):
        levels, out = np.array([(*c, HOLD) for c in combos]), np.empty((len(combos), 3))

        def walked(levels: np.ndarray = levels, out: np.ndarray = out) -> int:
            bt_nb.bars(*price, rates, signal, levels, 7e-4, out)
            return int(out[:, 1].sum())
        calls[f"bare bar walk of the peers, {len(combos):,}"] = Call(walked, len(combos))
    table = np.empty((len(LEVELS), len(STOPS), len(TARGETS), 3))

    def hopped() -> int:
        bt_nb.tables(*price, rates, signal, LEVELS, STOPS, TARGETS, HOLD, 7e-4, table)
        return int(table[..., 1].sum())
    return calls | {"bare tables of the peers, 1,000": Call(hopped, 1000)}


def peer_calls(folder: str | None, bars: pd.DataFrame, prepared: Prepared, signal: np.ndarray) -> dict[str, Call]:
    return bare_calls(folder, bars, prepared, signal) | {
        "vectorbt, orders only, 1": Call(vectorbt_call(bars, signal, [MIDDLE])),
        "vectorbt, with stats(), 1": Call(vectorbt_call(bars, signal, [MIDDLE], stats=True)),
        "vectorbt, orders only, 100": Call(vectorbt_call(bars, signal, GRID[::10]), 100),
        "vectorbt, orders only, 1,000": Call(vectorbt_call(bars, signal, GRID), 1000, turns=SLOW),
        "backtesting.py, 1": Call(backtesting_call(bars, signal), turns=SLOW),
    }


# --- measuring


def timed(calls: dict[str, Call], runs: int) -> dict[str, float]:
    "Median seconds of each call; the calls take turns, so that a busy moment hits them alike."
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs):
        for name, call in calls.items():
            if turn >= (call.turns or runs):
                continue
            gc.collect()
            if call.turns is None:
                call.run()  # the others have emptied the processor's caches
            start = time.process_time()
            call.run()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def peak_mb(what: str) -> float:
    "Highest resident size of a process that does this alone."
    answer = subprocess.run([sys.executable, __file__, "--memory", what], capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])


MEMORY = ("grid by tables, 1,000", "grid by the kernel, 1,000", "vectorbt, orders only, 100", "vectorbt, orders only, 1,000")


def remember(what: str) -> None:
    "The process that `peak_mb` starts."
    bars, funding, signal = market(N)
    if what.startswith("vectorbt"):
        vectorbt_call(bars, signal, GRID if what.endswith("1,000") else GRID[::10])()
    else:
        ours = ours_on(bars, funding, signal)
        ours.by_tables() if "tables" in what else ours.by_kernel()
        assert "vectorbt" not in sys.modules
    status = Path("/proc/self/status")  # `ru_maxrss` of a child begins with its parent's
    kb = float(status.read_text().split("VmHWM:")[1].split()[0]) if status.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(kb / 1024)


def goals_of(rate: dict[str, float], seconds: dict[str, float], peak: dict[str, float]) -> list[tuple[str, float, str, bool]]:
    "(what, measured, goal, met?)"
    best = max(rate["vectorbt, orders only, 100"], rate["vectorbt, orders only, 1,000"])
    rows = [("one combination with costs, funding and reasons, × vectorbt with orders only", rate["ours, recorded, 1"] / rate["vectorbt, orders only, 1"], 10),
            ("1,000 by tables, × vectorbt at 1,000 columns with orders only", rate["ours, grid by tables, 1,000"] / rate["vectorbt, orders only, 1,000"], 50),
            ("1,000 by tables, × vectorbt at the better of 100 and 1,000 columns", rate["ours, grid by tables, 1,000"] / best, 50)]
    found = [(what, x, f"at least {least}", x >= least) for what, x, least in rows]
    if (bare := "bare bar walk of the peers, 1,000") in seconds:
        over = seconds["ours, grid by the kernel, 1,000"] / seconds[bare]
        found.append(("1,000 by the kernel, its time over that of the bare bar walk", over, "at most 2", over <= 2))
    highest = max(peak[name] for name in MEMORY[:2])
    return [*found, ("highest memory of a grid of 1,000, MB", highest, "below 500", highest < 500)]


def written(calls: dict[str, Call], seconds: dict[str, float], rate: dict[str, float], trades: dict[str, int], peak: dict[str, float],
            same: dict[str, Any], runs: int) -> str:
    goals = goals_of(rate, seconds, peak)
    lines = ["# Backtest", "", f"One coin, {N:,} hourly bars, one thread; processor time, median of {runs} runs taken in turns ({SLOW} of those that take seconds), on a "
             f"machine shared with other jobs; {platform.machine()}, Python {platform.python_version()}. The number in a name is how many combinations of "
             "threshold, stop and target were run. Ours includes funding, a time exit, fees and slippage everywhere; recorded, also every reason, "
             "outcome and the account at every close. By tables a grid does not measure the drawdown between the ends of days.", "",
             "| goal | asked | measured | met |", "|---|---|---:|---|"]
    lines += [f"| {what} | {asked} | {x:.3g} | {'yes' if met else 'no'} |" for what, x, asked, met in goals]
    lines += ["", "| what | ms | bars × combinations / s | trades |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {1e3 * seconds[name]:.3g} | {rate[name]:.3g} | {trades[name]:,} |" for name in calls]
    lines += ["", "| peak of a process of its own | MB |", "|---|---:|"] + [f"| {name} | {mb:,.0f} |" for name, mb in peak.items()]
    lines += ["", f"Tables and kernel on the 1,000 combinations: {'the same' if same['same_counts'] else 'different'} counts of trades, wins, stops, bars held and bars that touched both; "
              f"net differs by at most {same['net_differs_by']:.1e} of itself, the Sharpe ratio by {same['sharpe_differs_by']:.1e}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peers", default=os.environ.get("CRYPTOALGO_PEERS"))
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
    options.add_argument("--memory", choices=MEMORY, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.memory:
        return remember(args.memory)
    bars, funding, signal = market(N)
    ours = ours_on(bars, funding, signal)
    calls = our_calls(ours, bars) | peer_calls(args.peers, bars, ours.prepared, signal)
    trades = {name: call.run() for name, call in calls.items()}  # compiles
    same, seconds = ours.same(), timed(calls, args.runs)
    rate = {name: N * call.combinations * call.coins / seconds[name] for name, call in calls.items()}
    peak = {name: peak_mb(name) for name in MEMORY}
    text = written(calls, seconds, rate, trades, peak, same, args.runs)
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "backtest.md").write_text(text)
    rows = {name: {"combinations": call.combinations, "coins": call.coins, "seconds": seconds[name], "rate": rate[name], "trades": trades[name]}
            for name, call in calls.items()}
    record = {"bars": N, "rows": rows, "peak_mb": peak, "tables_against_kernel": same,
              "goals": [dict(zip(("what", "measured", "asked", "met"), g)) for g in goals_of(rate, seconds, peak)]}
    (args.out / "backtest.json").write_text(json.dumps(record, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()

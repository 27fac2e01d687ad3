"""Features of one coin, 50,000 hourly bars, one thread: values per second beside TA-Lib's arrays, in one run.

    python benchmarks/features.py [--peers DIR] [--runs 9] [--out docs/benchmarks]

DIR holds the peers' `features_peers.py` (default: $CRYPTOALGO_PEERS); without it or without TA-Lib our rows stand alone.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported
os.environ["CRYPTOALGO_CACHE_DIR"] = tempfile.mkdtemp()  # so that compiling is measured, and from nothing
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

import cryptoalgo.features.catalogue  # noqa: E402, F401
from cryptoalgo.features import compiler  # noqa: E402
from cryptoalgo.features.registry import FeatureSet  # noqa: E402

N = 50_000


def market(n: int, seed: int = 20240917) -> tuple[pd.DataFrame, pd.DataFrame]:
    "(bars, context): a random walk with clustered volatility, funding every eight hours, open interest."
    rng = np.random.default_rng(seed)
    vol = 0.008 * np.exp(np.convolve(rng.normal(0, 0.5, n + 99), np.full(100, 0.1), "valid") * 0.3)
    close = 30_000 * np.exp(np.cumsum(vol * rng.standard_t(5, n)))
    open_ = np.r_[30_000, close[:-1]]
    index = pd.date_range("2020-01-01", periods=n, freq="h", tz="UTC", unit="ms", name="event_time")
    bars = pd.DataFrame({"open": open_, "high": np.maximum(open_, close) * (1 + vol * rng.exponential(0.5, n)),
                         "low": np.minimum(open_, close) * (1 - vol * rng.exponential(0.5, n)), "close": close,
                         "volume": rng.lognormal(6, 0.6, n)}, index=index)
    rate = np.repeat(rng.normal(1e-4, 1e-4, n // 8 + 1), 8)[:n]
    return bars, pd.DataFrame({"funding_rate": rate, "funding_event": np.where(index.hour % 8 == 7, rate, 0.0),
                               "open_interest": 1e5 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))}, index=index)


def timed(calls: dict[str, Callable], runs: int) -> dict[str, float]:
    "Median seconds of each call; the calls take turns, so that a busy moment hits them alike."
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(runs):
        for name, call in calls.items():
            gc.collect()
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def load_all(features: FeatureSet) -> float:
    "Seconds to generate and compile every group, or to fetch it from disk."
    compiler.load.cache_clear()
    start = time.perf_counter()
    FeatureSet(features.select).programs
    return time.perf_counter() - start


def stream_us(features: FeatureSet, bars: pd.DataFrame, context: pd.DataFrame) -> tuple[float, float]:
    "(median, 99th percentile) microseconds of one pushed bar."
    stream, spent = features.stream(), []
    columns = [(bars if name in bars else context)[name].tolist() for name in features.inputs]
    for bar in list(zip(bars.index.asi8.tolist(), *columns))[:20_000]:
        start = time.perf_counter_ns()
        stream.push(*bar)
        spent.append(time.perf_counter_ns() - start)
    return tuple(np.percentile(spent[5_000:], [50, 99]) / 1e3)


def peers(folder: str | None, bars: pd.DataFrame) -> dict[str, tuple[Callable, int]]:
    "name -> (call, columns) of what can be imported."
    if not folder:
        return {}
    sys.path.insert(0, str(Path(folder).resolve()))
    try:
        import features_peers as P
        import talib  # noqa: F401
    except ImportError as e:
        print(f"no peers: {e}", file=sys.stderr)
        return {}
    arrays = {name: bars[name].to_numpy(copy=True) for name in bars}
    reference = np.diff(np.log(arrays["close"]), prepend=np.log(arrays["close"][0]))
    return {"TA-Lib arrays and pandas moments": (lambda: P.talib_arrays(arrays, reference), 90),
            "FreqAI-style frame": (lambda: P.freqai_style(bars, reference), 90)}


def group_calls(features: FeatureSet, X: np.ndarray) -> dict[str, Callable]:
    "One call per group: the compiled pass alone, into a kept matrix."
    calls = {}
    for group, program in zip(features.sources, features.programs):
        width = sum(f.group == group for f in features.features)
        out, F = np.empty((N, width), np.float32), np.full(program.state, np.nan)
        calls[group] = lambda p=program, out=out, F=F: p.run(F, 438_288, 0, X, out, 0, N, 0)
    return calls


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peers", default=os.environ.get("CRYPTOALGO_PEERS"))
    options.add_argument("--runs", type=int, default=9)
    options.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
    args = options.parse_args()
    bars, context = market(N)
    features = FeatureSet()
    cold, warm = load_all(features), load_all(features)
    width = len(features.names)
    others = peers(args.peers, bars)
    groups = group_calls(features, features.matrix(bars, context))
    seconds = timed({"ours": lambda: features.compute(bars, context)} | {k: call for k, (call, _) in others.items()} | groups, args.runs)
    p50, p99 = stream_us(features, bars, context)

    first = f"ours: frame in, {width} float32 columns out, anchored"
    passes = f"ours: the {len(groups)} compiled passes alone"
    rows = {first: (seconds["ours"], width), passes: (sum(seconds[g] for g in groups), width)}
    rows |= {name: (seconds[name], columns) for name, (_, columns) in others.items()}
    base = rows.get("TA-Lib arrays and pandas moments")
    lines = ["# Features", "", f"One coin, {N:,} hourly bars, one thread, median of {args.runs} runs taken in turns; "
             f"{platform.machine()}, Python {platform.python_version()}.", "",
             "| what | columns | ms | values/s | × TA-Lib |", "|---|---:|---:|---:|---:|"]
    for name, (s, columns) in rows.items():
        ratio = f"{(N * columns / s) / (N * base[1] / base[0]):.2f}" if base else ""
        lines.append(f"| {name} | {columns} | {1e3 * s:.1f} | {N * columns / s:.3g} | {ratio} |")
    lines += ["", f"One bar, all {width} features, state kept: {p50:.1f} µs (99th percentile {p99:.1f}). Compiling from nothing "
              f"{cold:.1f} s, from disk {warm:.2f} s.", "", "| group | columns | ms | share |", "|---|---:|---:|---:|"]
    for group in groups:
        columns = sum(f.group == group for f in features.features)
        lines.append(f"| {group} | {columns} | {1e3 * seconds[group]:.2f} | {seconds[group] / rows[passes][0]:.0%} |")
    print("\n".join(lines))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "features.md").write_text("\n".join(lines) + "\n")
    record = {"bars": N, "columns": width, "lookback": features.lookback, "cold_s": cold, "warm_s": warm, "push_us_p50": p50,
              "push_us_p99": p99, "rows": {k: {"seconds": s, "columns": c, "values_per_s": N * c / s} for k, (s, c) in rows.items()},
              "groups_s": {g: seconds[g] for g in groups}}
    (args.out / "features.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Features of hourly bars, one thread: beside the peers in one run, group by group for twenty coins, per bar, in memory, and in growth.

    python benchmarks/features.py [--peers DIR] [--runs 9] [--out docs/benchmarks]

DIR holds the peers' `features_peers.py` and `features_nb.py` (default: $CRYPTOALGO_PEERS); without it or without TA-Lib our rows
stand alone. The peers' list, 30 indicators at 3 windows, is written in our expressions in `peers_list.py`; its numbers are compared
with theirs before anything is timed.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported
if "--memory" not in sys.argv:
    os.environ["CRYPTOALGO_CACHE_DIR"] = tempfile.mkdtemp()  # so that compiling is measured, and from nothing
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # the peers' folder may be read-only
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from peers_list import REFERENCE, WINDOWS, peers_list  # noqa: E402

import cryptoalgo.features.catalogue  # noqa: E402, F401
from cryptoalgo.features import compiler  # noqa: E402
from cryptoalgo.features.expressions import INPUTS  # noqa: E402
from cryptoalgo.features.registry import FeatureSet  # noqa: E402
from cryptoalgo.workbench import style  # noqa: E402

N, PAIRS = 50_000, 20
NUMBER = 438_288  # of the first bar on the hourly grid
WARM = 5_000  # rows after which every peer's recursion has forgotten its seed
AGREE = 1e-4  # of a column's standard deviation: an anchored mean has forgotten all but a millionth, and ratios of two magnify it
FIFTH = 0.2
REASONS = {"volatility": "`vol_percentile` ranks a value among 168 bars, all of them read at each bar; what the alternative costs stands in "
                         "`nbs/2_features/20_kernels.ipynb`, *Functions of a whole window*"}  # why a group may take more than a fifth
NEIGHBOURS = (24, 20, 28, 22, 26, 18, 30, 16)  # windows of about one length: 30 columns each, at about one price
Calls = dict[str, Callable]


def market(n: int, seed: int = 20240917) -> tuple[pd.DataFrame, pd.DataFrame]:
    "(bars, context): a random walk with clustered volatility, funding every eight hours, open interest, and a walk for what else is read."
    rng = np.random.default_rng(seed)
    vol = 0.008 * np.exp(np.convolve(rng.normal(0, 0.5, n + 99), np.full(100, 0.1), "valid") * 0.3)
    close = 30_000 * np.exp(np.cumsum(vol * rng.standard_t(5, n)))
    open_ = np.r_[30_000, close[:-1]]
    index = pd.date_range("2020-01-01", periods=n, freq="h", tz="UTC", unit="ms", name="event_time")
    bars = pd.DataFrame({"open": open_, "high": np.maximum(open_, close) * (1 + vol * rng.exponential(0.5, n)),
                         "low": np.minimum(open_, close) * (1 - vol * rng.exponential(0.5, n)), "close": close,
                         "volume": rng.lognormal(6, 0.6, n)}, index=index)
    rate = np.repeat(rng.normal(1e-4, 1e-4, n // 8 + 1), 8)[:n]
    context = {"funding_rate": rate, "funding_event": np.where(index.hour % 8 == 7, rate, 0.0)}
    context |= {name: 1e5 * np.exp(np.cumsum(rng.normal(0, 0.01, n))) for name in INPUTS if name not in bars and name not in context}
    return bars, pd.DataFrame(context, index=index)


def returns(seed: int) -> np.ndarray:
    "Log returns of a reference coin."
    close = market(N, seed)[0]["close"].to_numpy()
    return np.diff(np.log(close), prepend=np.log(close[0]))


def timed(calls: Calls, runs: int) -> dict:
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
    median, high = np.percentile(spent[5_000:], [50, 99]) / 1e3
    return float(median), float(high)


def peers(folder: str | None, bars: pd.DataFrame, reference: np.ndarray) -> Calls:
    "name -> call, each with 90 columns, of what can be imported."
    if not folder:
        return {}
    sys.path.insert(0, str(Path(folder).resolve()))
    try:
        import features_nb as bare
        import features_peers as P
        import talib  # noqa: F401
    except ImportError as e:
        print(f"no peers: {e}", file=sys.stderr)
        return {}
    arrays, out = {name: bars[name].to_numpy(copy=True) for name in bars}, np.empty((N, 90), np.float32)
    return {"TA-Lib arrays and pandas moments": lambda: P.talib_arrays(arrays, reference),
            "FreqAI-style frame": lambda: P.freqai_style(bars, reference),
            "bare numba kernel, endless recursion": lambda: bare.coin_features(arrays, reference, out)}


def agreement(ours: pd.DataFrame, others: Calls) -> pd.DataFrame:
    "Largest difference after the warm-up in standard deviations of the column: a row per indicator, a column per peer."
    found = {}
    for name, call in others.items():
        theirs = call()
        theirs = np.column_stack(theirs) if isinstance(theirs, list) else np.asarray(theirs, np.float64)
        gap = (ours.to_numpy(np.float64)[WARM:] - theirs[WARM:]) / theirs[WARM:].std(0)
        found[name] = np.abs(gap).max(0).reshape(len(WINDOWS), -1).max(0)  # a NaN on either side stays one
    table = pd.DataFrame(found, index=[name.rsplit("_", 1)[0] for name in ours.columns[: len(ours.columns) // len(WINDOWS)]])
    assert (table < AGREE).all(axis=None), f"the peers' numbers are not ours:\n{table[~(table < AGREE).all(axis=1)]}"
    return table


def passes(features: FeatureSet, coins: list[np.ndarray]) -> Calls:
    "One call per group: its compiled pass alone over every coin, into a kept matrix."
    calls = {}
    for group, program in zip(features.sources, features.programs):
        out = np.empty((coins[0].shape[1], sum(f.group == group for f in features.features)), np.float32)

        def run(program=program, out=out):
            for X in coins:
                program.run(np.full(program.state, np.nan), NUMBER, 0, X, out, 0, len(out), 0)
        calls[group] = run
    return calls


def memory() -> float:
    "Peak resident memory that `compute` adds, as a multiple of its output; run in a process that has compiled nothing."
    features, (bars, context) = FeatureSet(), market(N)
    features.compute(bars.iloc[:5_000], context.iloc[:5_000])
    gc.collect()

    def kib(what: str) -> int:
        return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)).split()[1])
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins at what is held now
    before = kib("VmRSS")
    table = features.compute(bars, context)
    return 1024 * (kib("VmHWM") - before) / table.to_numpy().nbytes


def memory_elsewhere() -> float | None:
    "`memory` in a process of its own; None where the system does not say."
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    done = subprocess.run([sys.executable, __file__, "--memory"], stdout=subprocess.PIPE, check=True, timeout=300)
    return float(done.stdout)


def kept(features: FeatureSet, *pairs: tuple[pd.DataFrame, pd.DataFrame]) -> Callable:
    "The whole way of each pair, groups and tiles, into one kept matrix: what fresh memory costs is the system's, not ours."
    out, coins = np.zeros((len(pairs[0][0]), len(features.names)), np.float32), [features.matrix(*pair) for pair in pairs]

    def run():
        for X in coins:
            features.stream()._advance(NUMBER, X, out, 0, len(out))
    return run


def growth(features: FeatureSet, runs: int) -> dict[str, dict[int, float]]:
    "Seconds by rows and by pairs of the whole set, and by columns of the peers' list."
    bars, context = market(4 * N)
    pairs = [market(N, seed) for seed in range(PAIRS)]
    rows = {n: kept(features, (bars.iloc[:n], context.iloc[:n])) for n in (N // 4, N // 2, N, 2 * N, 4 * N)}
    coins = {k: kept(features, *pairs[:k]) for k in (1, 2, 5, 10, PAIRS)}
    lists = [peers_list(NEIGHBOURS[:k], fused=False) for k in (1, 2, 4, 8)]
    columns = {len(f.names): kept(f, pairs[0]) for f in lists}
    return {what: timed(calls, runs) for what, calls in (("rows", rows), ("pairs", coins), ("columns", columns))}


def exponent(seconds: dict[int, float]) -> float:
    "Slope of log time on log size: 1 is linear."
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def draw(grown: dict[str, dict[int, float]], path: Path) -> None:
    "Time against size, both as multiples of the smallest."
    with style.house_style():
        figure, (ax,) = style.canvas("Twice the rows, pairs or columns take about twice the time",
                                     "One thread, into kept memory; size and time as multiples of the smallest. Grey: linear. The power is a fit.", height=2.6)
        ax.plot([1, 24], [1, 24], color=style.GREY, lw=0.8, ls="--")
        for (what, seconds), colour in zip(grown.items(), (style.BLUE, style.ORANGE, style.GREEN)):
            least, first = next(iter(seconds.items()))
            ax.plot([n / least for n in seconds], [s / first for s in seconds.values()], "o-", ms=4, color=colour,
                    label=f"{what}, from {least:,}: n^{exponent(seconds):.2f}")
        ticks = (1, 2, 4, 8, 16)
        ax.set(xscale="log", yscale="log", xlabel="size", ylabel="time", xticks=ticks, yticks=ticks)
        ax.minorticks_off()
        for axis in (ax.xaxis, ax.yaxis):
            style.unit_axis(axis, "{:g}×")
        style.legend(ax, ncols=3)
        style.save_png(figure, path)


def aims(rows: dict[str, tuple[float, int]], shares: dict[str, float], push: float, held: float | None, grown: dict[str, float]) -> list:
    "(what was asked, what was found, whether it is met)."
    ours, talib, freqai, bare = (next((s for name, (s, _) in rows.items() if name.startswith(start)), None)
                                 for start in ("ours: the peers' list, frame", "TA-Lib", "FreqAI", "bare"))
    found = []
    if talib:
        found += [("peers' list at least as fast as TA-Lib arrays", f"{talib / ours:.2f} ×", talib >= ours),
                  ("peers' list at least twice as fast as FreqAI-style", f"{freqai / ours:.2f} ×", freqai >= 2 * ours),
                  ("peers' list within 3 × the bare kernel", f"{ours / bare:.2f} ×", ours <= 3 * bare)]
    worst = max(shares, key=lambda group: shares[group])
    found += [("no group above a fifth of the whole set without a reason", f"at most {shares[worst]:.0%}, {worst}",
               all(share <= FIFTH or group in REASONS for group, share in shares.items())),
              ("one bar, all features, under 20 µs", f"{push:.1f} µs", push < 20)]
    if held is not None:
        found.append(("peak memory under 2 × the output", f"{held:.2f} ×", held < 2))
    steepest = max(grown, key=lambda what: grown[what])
    return [*found, ("growth linear in rows, pairs and columns", f"at most n^{grown[steepest]:.2f}, {steepest}", grown[steepest] < 1.1)]


def report(rows: dict[str, tuple[float, int]], met: list, said: str, features: FeatureSet, groups: dict[str, float],
           grown: dict[str, dict[int, float]], agree: pd.DataFrame, runs: int) -> list[str]:
    "The page, line by line."
    base, bare = (next((s / c for name, (s, c) in rows.items() if name.startswith(start)), None) for start in ("TA-Lib", "bare"))
    lines = ["# Features", "", f"One coin, {N:,} hourly bars, one thread, median of {runs} runs taken in turns; "
             f"{platform.machine()}, Python {platform.python_version()}. Ratios are of the time per value.", "",
             "| what | columns | ms | values/s | speed, × TA-Lib | time, × bare kernel |", "|---|---:|---:|---:|---:|---:|"]
    for name, (s, c) in rows.items():
        lines.append(f"| {name} | {c} | {1e3 * s:.1f} | {N * c / s:.3g} | {f'{base * c / s:.2f}' if base else ''} | "
                     f"{f'{s / c / bare:.2f}' if bare else ''} |")
    lines += ["", "| aim | found | met |", "|---|---|---|", *(f"| {what} | {value} | {'yes' if ok else '**no**'} |" for what, value, ok in met)]
    lines += ["", said, "", f"## The whole set, {PAIRS} pairs × {N:,} rows", "", "Each group's compiled pass alone, all pairs.", "",
              "| group | columns | s | share | ns per value |", "|---|---:|---:|---:|---:|"]
    whole = sum(groups.values())
    for group, s in groups.items():
        c = sum(f.group == group for f in features.features)
        share = f"**{s / whole:.0%}**" if s > FIFTH * whole else f"{s / whole:.0%}"
        lines.append(f"| {group} | {c} | {s:.3f} | {share} | {1e9 * s / (PAIRS * N * c):.1f} |")
    width = len(features.names)
    lines += [f"| all | {width} | {whole:.3f} | 100% | {1e9 * whole / (PAIRS * N * width):.1f} |", ""]
    lines += [f"{group}: {REASONS.get(group, 'no reason is given')}.\n" for group, s in groups.items() if s > FIFTH * whole]
    lines += ["## Growth", "", "Groups and tiles as in `compute`, into kept memory. By columns: the peers' list at 1 to 8 windows of about a day, a group "
              "each.", "", "![time against size](features_growth.png)", "", "| by | sizes | s | exponent |", "|---|---|---|---:|"]
    for what, seconds in grown.items():
        lines.append(f"| {what} | {', '.join(f'{n:,}' for n in seconds)} | {', '.join(f'{s:.3f}' for s in seconds.values())} | "
                     f"{exponent(seconds):.2f} |")
    if len(agree):
        lines += ["", "## Like is timed with like", "", f"Largest difference from each peer after {WARM:,} bars, over the three windows, in "
                  "standard deviations of the column; the peers' recursions never forget, ours have forgotten all but a millionth.", "",
                  f"| indicator | {' | '.join(agree)} |", "|---|" + "---:|" * len(agree.columns),
                  *(f"| {name} | {' | '.join(f'{x:.1e}' for x in row)} |" for name, row in zip(agree.index, agree.to_numpy()))]
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peers", default=os.environ.get("CRYPTOALGO_PEERS"))
    options.add_argument("--runs", type=int, default=9)
    options.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
    options.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.memory:
        print(memory())
        return
    (bars, context), reference = market(N), returns(seed=1)
    with_reference = context.assign(**{REFERENCE: reference})
    features, listed = FeatureSet(), peers_list()
    cold, warm = load_all(features), load_all(features)
    width = len(features.names)
    others = peers(args.peers, bars, reference)
    agree = agreement(listed.compute(bars, with_reference), others) if others else pd.DataFrame()

    first, alone = "ours: the peers' list, frame in, float32 frame out, anchored", "ours: the peers' list, the compiled pass alone"
    whole, whole_alone = "ours: the registered set, frame in, float32 frame out, anchored", "ours: the registered set, its compiled passes alone"
    single = passes(features, [features.matrix(bars, context)])
    calls = {first: lambda: listed.compute(bars, with_reference), alone: passes(listed, [listed.matrix(bars, with_reference)])["peers"],
             **others, whole: lambda: features.compute(bars, context), whole_alone: lambda: [call() for call in single.values()]}
    rows = {name: (s, width if name in (whole, whole_alone) else 90) for name, s in timed(calls, args.runs).items()}
    groups = timed(passes(features, [features.matrix(*market(N, seed)) for seed in range(PAIRS)]), max(3, args.runs // 2))
    shares = {group: s / sum(groups.values()) for group, s in groups.items()}
    (p50, p99), (list50, list99) = stream_us(features, bars, context), stream_us(listed, bars, with_reference)
    held = memory_elsewhere()
    grown = growth(features, max(3, args.runs // 2))
    exponents = {what: exponent(seconds) for what, seconds in grown.items()}
    met = aims(rows, shares, p50, held, exponents)

    said = (f"One bar, state kept: all {width} features {p50:.1f} µs (99th percentile {p99:.1f}), the peers' list {list50:.1f} µs ({list99:.1f}). "
            f"Compiling the whole set from nothing {cold:.1f} s, from disk {warm:.2f} s.")
    lines = report(rows, met, said, features, groups, grown, agree, args.runs)
    print("\n".join(lines))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(grown, args.out / "features_growth.png")
    (args.out / "features.md").write_text("\n".join(lines) + "\n")
    record = {"bars": N, "columns": width, "lookback": features.lookback, "cold_s": cold, "warm_s": warm, "push_us_p50": p50,
              "push_us_p99": p99, "list_push_us_p50": list50, "list_push_us_p99": list99, "peak_memory_x_output": held,
              "rows": {k: {"seconds": s, "columns": c, "values_per_s": N * c / s} for k, (s, c) in rows.items()},
              "pairs": PAIRS, "groups_s": groups, "group_shares": shares, "growth_s": grown, "growth_exponents": exponents,
              "aims": [{"aim": what, "found": value, "met": bool(ok)} for what, value, ok in met],
              "agreement_sd": {peer: agree[peer].to_dict() for peer in agree}}
    (args.out / "features.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

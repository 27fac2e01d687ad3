"""24 walk-forward windows of 24,000 x 90 on 50,000 synthetic hours: ours beside a FreqAI-like loop and bare LightGBM, in one run.

    python benchmarks/training.py [--peers DIR] [--cores 1] [--windows 24] [--out docs/benchmarks]

The FreqAI-like loop slices frames, splits off an eval set, filters, scales, fits LGBMRegressor, saves and predicts. Ours cuts the
matrix into bins once, fits row-wise with one thread on subsets, and answers; a walk through `walk_forward`, with three purged
folds of calibration to each model, stands beside it. Bare is the time inside `lgb.train` alone, on subsets made before. DIR
holds the peers' `bench_ml.py` with data and loop (default: $CRYPTOALGO_PEERS); without it both are made here. On one core all
take turns window by window and processor time counts; on several, whole walks take turns and the clock counts.
"""

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("--peers", default=os.environ.get("CRYPTOALGO_PEERS"))
options.add_argument("--cores", type=int, default=1)
options.add_argument("--windows", type=int, default=24)
options.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
ARGS = options.parse_args()
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = str(ARGS.cores)  # before numpy is imported
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-ARGS.cores:]))

import lightgbm as lgb  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from cryptoalgo.core.sections import ModelParams  # noqa: E402
from cryptoalgo.features.splits import Fold, Span  # noqa: E402
from cryptoalgo.models.boosting import LightGBM  # noqa: E402
from cryptoalgo.models.training import Bins, walk_forward  # noqa: E402

TRAIN, WINDOWS, GAP, TREES = 24_000, 24, 24, 100
PARAMS = ModelParams(
    name="lightgbm", task="return", n_estimators=TREES, max_depth=-1, num_leaves=31, learning_rate=0.1, min_child_samples=20,
    lambda_l1=0, lambda_l2=0, max_bin=255, calibration="isotonic", calibration_folds=3, min_rows=400, min_class_rows=15, min_auc=0.0)
OURS = {"255 bins": PARAMS, "63 bins": PARAMS.model_copy(update={"max_bin": 63}),
        "63 bins, quantised": PARAMS.model_copy(update={"max_bin": 63, "quantised": True})}


def made_here(n: int = 50_000, k: int = 90, seed: int = 20240917) -> SimpleNamespace:
    "Data and loop of the same form as the peers': features that remember, a target that a few of them explain in part."
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, k)).astype("float32")
    for t in range(1, n):
        x[t] = 0.9 * x[t - 1] + 0.43 * x[t]
    y = (np.abs(x[:, 0]) + x[:, 1] * (x[:, 2] > 0) + 2 * rng.standard_normal(n)).astype("float32")
    step = (n - TRAIN - GAP) // WINDOWS
    spans = [(i * step, i * step + TRAIN, i * step + TRAIN + GAP, i * step + TRAIN + GAP + step) for i in range(WINDOWS)]

    def freqai(i: int, df: pd.DataFrame, dump: bool, nt: int | None = None) -> np.ndarray:
        import joblib
        from sklearn.feature_selection import VarianceThreshold
        from sklearn.model_selection import train_test_split
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import MinMaxScaler

        a, b, c, e = spans[i]
        tr, te, ytr, yte = train_test_split(df.iloc[a:b], y[a:b], test_size=0.1, shuffle=False)
        pipe = Pipeline([("const", VarianceThreshold()), ("scale", MinMaxScaler((-1, 1)))]).set_output(transform="pandas")
        tr, te, scale = pipe.fit_transform(tr), pipe.transform(te), MinMaxScaler((-1, 1))
        ytr, yte = scale.fit_transform(ytr[:, None])[:, 0], scale.transform(yte[:, None])[:, 0]
        model = lgb.LGBMRegressor(n_estimators=TREES, num_leaves=31, n_jobs=nt, verbosity=-1)
        model.fit(tr, ytr, eval_set=[(te, yte)], sample_weight=np.ones(len(tr)))
        said = model.predict(pipe.transform(df.iloc[c:e]))
        with tempfile.TemporaryDirectory() as folder:
            joblib.dump(model, Path(folder) / "model.joblib")
        return scale.inverse_transform(said[:, None])[:, 0]
    return SimpleNamespace(X=x, y=y, SPANS=spans, freqai=freqai, source="data and loop made here")


def peers(folder: str | None) -> SimpleNamespace:
    "X, y, SPANS and the loop of the peers' `bench_ml.py`, or those made here."
    if not folder:
        return made_here()
    place, argv = tempfile.mkdtemp(prefix="peers-"), sys.argv
    os.environ |= {"PEERS_CACHE": place, "PEERS_RESULTS": place, "PEERS_THREADS": str(ARGS.cores)}
    sys.path.insert(0, str(Path(folder).resolve()))
    sys.argv = ["bench_ml.py", "--only", "nothing"]
    import bench_ml
    sys.argv = argv
    return SimpleNamespace(X=bench_ml.X, y=bench_ml.y, SPANS=bench_ml.SPANS, freqai=bench_ml.freqai, source="data and loop of the peers' bench_ml.py")


class Walk:
    "Ours: what is done once, and what is done for each window."

    def __init__(self, features: pd.DataFrame, y: np.ndarray, spans: list, params: ModelParams) -> None:
        self.params, self.y, self.spans = params, y.astype("float64"), spans
        self.bins = Bins(features)
        self.origins = self.bins.plan([np.arange(a, b) for a, b, _, _ in spans])
        self.rows = [self.bins.of(origin, params, 42) for origin in self.origins]

    def window(self, i: int) -> np.ndarray:
        a, b, c, e = self.spans[i]
        learner = LightGBM(self.params, 42).fit(self.rows[i].take(np.arange(a, b)), self.y[a:b], np.ones(b - a))
        return learner.margin(self.bins.rows.take(np.arange(c, e)))

    def subset(self, i: int) -> lgb.Dataset:
        "What `lgb.train` is handed for a window."
        a, b, _, _ = self.spans[i]
        window = self.rows[i].bins["lightgbm"].subset(list(range(a, b))).construct()
        window.set_label(self.y[a:b].astype("float32"))
        window.set_weight(np.ones(b - a, "float32"))
        return window

    def settings(self) -> dict:
        return LightGBM(self.params, 42)._settings()


class Stopwatch:
    "Seconds by name; on one core of the processor, else of the clock."

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.now = time.process_time if ARGS.cores == 1 else time.perf_counter

    def __call__(self, name: str, fn: Callable, *args):
        gc.collect()
        start = self.now()
        out = fn(*args)
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start
        return out


def blocks(said: np.ndarray, came: np.ndarray, length: int = 240) -> np.ndarray:
    "Sums that a correlation is made of, by block of ten days."
    n = said.size // length
    p, t = said[: n * length].reshape(n, length), came[: n * length].reshape(n, length)
    return np.column_stack([np.full(n, float(length)), p.sum(1), t.sum(1), (p * p).sum(1), (t * t).sum(1), (p * t).sum(1)])


def correlation(sums: np.ndarray) -> np.ndarray:
    n, p, t, pp, tt, pt = np.moveaxis(sums, -1, 0)
    return (n * pt - p * t) / np.sqrt((n * pp - p * p) * (n * tt - t * t))


def compared(said: dict[str, np.ndarray], came: np.ndarray, base: str) -> dict[str, dict]:
    "Correlation out of sample with its interval, and that of its difference to the base; the same blocks drawn for all."
    sums = {name: blocks(p, came) for name, p in said.items()}
    drawn = np.random.default_rng(0).integers(0, len(sums[base]), (4000, len(sums[base])))
    paths = {name: correlation(s[drawn].sum(axis=1)) for name, s in sums.items()}
    out = {}
    for name, p in said.items():
        low, high = np.quantile(paths[name], [0.025, 0.975])
        less, more = np.quantile(paths[name] - paths[base], [0.025, 0.975])
        out[name] = {"correlation": float(np.corrcoef(p, came)[0, 1]), "low": float(low), "high": float(high),
                     "difference_low": float(less), "difference_high": float(more)}
    return out


def on_one_core(peer: SimpleNamespace, frame: pd.DataFrame, features: pd.DataFrame, watch: Stopwatch) -> dict[str, np.ndarray]:
    "Everything window by window in turns."
    walks = {name: watch(name, Walk, features, peer.y, peer.SPANS, p) for name, p in OURS.items()}
    said: dict[str, list] = {name: [] for name in ("loop", *OURS)}
    for i in range(len(peer.SPANS)):
        said["loop"].append(watch("loop", peer.freqai, i, frame, True, 1))
        for name, walk in walks.items():
            said[name].append(watch(name, walk.window, i))
            window = walk.subset(i)
            watch(f"bare {name}", lgb.train, walk.settings(), window, TREES)
    return {name: np.concatenate(parts) for name, parts in said.items()}


def on_several(peer: SimpleNamespace, frame: pd.DataFrame, features: pd.DataFrame, watch: Stopwatch) -> dict[str, np.ndarray]:
    "Whole walks in turns: the loop gives each fit all cores, ours gives each core a window."
    n = range(len(peer.SPANS))

    def ours(p: ModelParams) -> list:
        walk = Walk(features, peer.y, peer.SPANS, p)
        with ThreadPoolExecutor(ARGS.cores) as pool:
            return list(pool.map(walk.window, n))

    said = {"loop": watch("loop", lambda: [peer.freqai(i, frame, True, ARGS.cores) for i in n])}
    said |= {name: watch(name, ours, p) for name, p in OURS.items()}
    return {name: np.concatenate(parts) for name, parts in said.items()}


def whole_model(peer: SimpleNamespace, features: pd.DataFrame, watch: Stopwatch) -> tuple[str, np.ndarray]:
    "The same windows through `walk_forward`: purged folds, calibration, answers, scores."
    name = "63 bins, quantised, with calibration"
    times = pd.DatetimeIndex(features.index)
    start = times + pd.Timedelta("1h")
    labels = pd.DataFrame({"y": peer.y.astype("float64") - np.median(peer.y), "ret": peer.y.astype("float64"), "t_start": start,
                           "t_end": start + pd.Timedelta(f"{GAP - 1}h")}, times)
    folds = [Fold(k, (Span(a, b),), (Span(c, e),), 0, 0) for k, (a, b, c, e) in enumerate(peer.SPANS)]
    done = watch(name, lambda: walk_forward(features, labels, folds, OURS["63 bins, quantised"], 42, workers=ARGS.cores))
    assert not done.refusals
    return name, done.predictions["yhat"].to_numpy()


def table(seconds: dict[str, float], skill: dict[str, dict]) -> list[str]:
    loop = seconds["loop"]
    lines = ["| what | s | × loop | ÷ bare fits | correlation out of sample | less the loop's |", "|---|---:|---:|---:|---:|---:|"]
    for name, k in skill.items():
        bare = seconds.get(f"bare {name}")
        lines.append(f"| {'FreqAI-like loop' if name == 'loop' else 'ours, ' + name} | {seconds[name]:.2f} | {loop / seconds[name]:.2f} | "
                     f"{f'{seconds[name] / bare:.3f}' if bare else ''} | {k['correlation']:.3f} [{k['low']:.3f}, {k['high']:.3f}] | "
                     + ("" if name == "loop" else f"{k['correlation'] - skill['loop']['correlation']:+.3f} [{k['difference_low']:+.3f}, {k['difference_high']:+.3f}]") + " |")
    return lines


def main() -> None:
    peer, watch = peers(ARGS.peers), Stopwatch()
    peer.SPANS = peer.SPANS[: ARGS.windows]
    times = pd.date_range("2020-01-01", periods=len(peer.X), freq="h", tz="UTC", unit="ms", name="event_time")
    features = pd.DataFrame(peer.X, times, [f"f_{k}" for k in range(peer.X.shape[1])])
    frame = pd.DataFrame(peer.X.astype("float64"), columns=[f"%-{k}" for k in range(peer.X.shape[1])])
    said = (on_one_core if ARGS.cores == 1 else on_several)(peer, frame, features, watch)
    name, yhat = whole_model(peer, features, watch)
    said[name] = yhat
    skill = compared(said, np.concatenate([peer.y[c:e] for _, _, c, e in peer.SPANS]).astype("float64"), "loop")
    clock = "processor seconds, windows in turns" if ARGS.cores == 1 else "seconds by the clock, whole walks in turns"
    lines = [f"## {ARGS.cores} core{'s' * (ARGS.cores > 1)}", "",
             f"{len(peer.SPANS)} windows of {TRAIN:,} × {peer.X.shape[1]}, {TREES} trees of 31 leaves; {peer.source}; {clock}; {platform.machine()}, "
             f"Python {platform.python_version()}, LightGBM {lgb.__version__}. Times of ours include cutting the bins. In brackets: 95 % over blocks of ten days, "
             "the same blocks for all. The loop keeps a tenth of each window as its eval set.", "", *table(watch.seconds, skill), ""]
    print("\n".join(lines))
    ARGS.out.mkdir(parents=True, exist_ok=True)
    file = ARGS.out / "training.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[str(ARGS.cores)] = {"windows": len(peer.SPANS), "source": peer.source, "seconds": watch.seconds, "skill": skill, "text": "\n".join(lines)}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    (ARGS.out / "training.md").write_text("# Training\n\n" + "\n".join(kept[k]["text"] for k in sorted(kept)))


if __name__ == "__main__":
    main()

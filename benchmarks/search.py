"""A search of a hundred trials: where its time goes, what a trial adds to memory, what a second worker brings.

    python benchmarks/search.py [--trials 100] [--out docs/benchmarks]

One coin of the embedded market, three years less the holdout, quick preset. Fits and their answers are timed around the
estimator library's own calls, walks around the kernel's; everything else (labels, weights, folds, calibration, decisions,
the objective, sampler, study file) is ours.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported

import lightgbm as lgb  # noqa: E402

from cryptoalgo.core.ledger import Span  # noqa: E402
from cryptoalgo.core.params import load_issue, resolve  # noqa: E402
from cryptoalgo.core.profiles import load_costs  # noqa: E402
from cryptoalgo.research import study as studies  # noqa: E402
from cryptoalgo.research.dataset import features_fn, prepare  # noqa: E402
from cryptoalgo.research.optimize import optimize  # noqa: E402
from cryptoalgo.research.series import Experiment, last_moment, read_raw  # noqa: E402
from cryptoalgo.research.trials import Bench, try_values  # noqa: E402
from cryptoalgo.trading import kernel  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SPENT = {"fits": 0.0, "answers": 0.0, "walks": 0.0}


def resident_mb() -> float:
    "Memory of this process now."
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(owner, name: str, kind: str) -> None:
    "Add up the time spent in a function of somebody else's."
    real = getattr(owner, name)

    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            SPENT[kind] += time.perf_counter() - start

    setattr(owner, name, call)


def given(trials: int):
    "Experiment, series and features of the simulated BTC."
    sets = (f"search.trials={trials}", "search.n_folds=2", "search.patience=1000")  # all of them: a plateau would end it earlier
    params = resolve(ROOT / "params", load_issue(ROOT / "params" / "issues" / "001-demo.yaml"), "BTC", sets)
    x = Experiment("BTC", "1h", params, load_costs(ROOT / "params" / "venues.yaml", params.costs), Span(0, 0))
    end = last_moment(x, None)
    x = replace(x, holdout=Span(end - 365 * 86_400_000, end))
    data = prepare(x, read_raw(x, None, {}, None, x.holdout.start_ms))
    return x, data, features_fn(x)(data.series.bars, data.series.published)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    args = parser.parse_args()
    x, data, features = given(args.trials)
    try_values(Bench(x, data, features), {})  # compiles

    memory: list[float] = []
    watching: list[float] = []  # seconds that this benchmark itself takes
    real = studies._frozen

    def noted(*call):
        began = time.perf_counter()
        gc.collect()
        memory.append(resident_mb())
        watching.append(time.perf_counter() - began)
        return real(*call)

    studies._frozen = noted
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        pair = optimize(x, data, features, f"sqlite:///{folder}/two.db", 2)
        two = time.perf_counter() - start - sum(watching)
        memory.clear()
        watching.clear()
        timed(lgb, "train", "fits")
        timed(lgb.Dataset, "construct", "fits")
        timed(lgb.Booster, "predict", "answers")
        for name in [n for n in dir(kernel) if n.startswith("fold")]:
            timed(kernel, name, "walks")
        start = time.perf_counter()
        found = optimize(x, data, features, f"sqlite:///{folder}/one.db", 1)
        one = time.perf_counter() - start - sum(watching)
    assert found.trials.equals(pair.trials), "one worker and two must find the same"
    states = found.trials["state"].value_counts().to_dict()
    inside = sum(SPENT.values()) / one
    third = len(memory) // 3
    grown = (sum(memory[-third:]) - sum(memory[third:2 * third])) / third / third * 1000 if third else float("nan")
    rows = [("trials", f"{len(found.trials)} ({', '.join(f'{n} {s}' for s, n in states.items())})"),
            ("one worker", f"{one:.1f} s, {one / len(found.trials):.2f} s a trial"),
            ("two workers", f"{two:.1f} s, {one / two:.2f} × as fast, the same trials"),
            ("share inside fits, answers and the kernel (aim: 90 %)", f"{inside:.1%} ({', '.join(f'{k} {v / one:.1%}' for k, v in SPENT.items())})"),
            ("memory: last third of the trials against the middle third", f"{grown:+.0f} kB a trial"),
            ("largest memory", f"{max(memory):.0f} MB")]
    text = (f"# Search\n\nSimulated BTC, {features.shape[0]:,} hourly bars × {features.shape[1]} features, two folds, {platform.machine()}, "
            f"Python {platform.python_version()}, LightGBM {lgb.__version__}, one thread a fit. `python benchmarks/search.py`\n\n| what | measured |\n|---|---|\n"
            + "".join(f"| {a} | {b} |\n" for a, b in rows))
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "search.md").write_text(text)
    (args.out / "search.json").write_text(json.dumps({
        "trials": len(found.trials), "states": states, "one_worker_s": one, "two_workers_s": two, "inside": inside,
        "shares": {k: v / one for k, v in SPENT.items()}, "kb_a_trial": grown, "peak_mb": max(memory)}, indent=2) + "\n")


if __name__ == "__main__":
    main()

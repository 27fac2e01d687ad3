"""A study whose process can be killed: `python slow_study.py URL BUDGET SECONDS`."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import optuna

from cryptoalgo.core.sections import SearchParams
from cryptoalgo.research.study import Result, is_beaten, open_study, run_study

SPACE = {"a": optuna.distributions.FloatDistribution(-3, 3), "b": optuna.distributions.IntDistribution(0, 20, step=2),
         "c": optuna.distributions.CategoricalDistribution(("x", "y", None))}
P = SearchParams(batch=4, startup_trials=8, warmup_folds=1, patience=1000)


def one(asked, rivals, seconds: float) -> Result:
    time.sleep(seconds)
    a, b, c = (asked.values[k] for k in "abc")
    if asked.number % 11 == 7:
        return Result("failed", None, (), {"reason": "loss is not a number"})
    steps = (-a * a, -a * a - abs(b - 8) / 4, -a * a - abs(b - 8) / 4 + (c == "y"))
    if is_beaten(steps[:2], rivals, P):
        return Result("pruned", steps[1], steps[:2])
    return Result("finished", steps[2], steps, {"terms": {"a": -a * a}})


def search(url: str, budget: int, seconds: float = 0.0, workers: int = 2, seed: int = 3) -> str:
    study = open_study(url, "slow", "dataset")
    with ThreadPoolExecutor(workers) as pool:
        return run_study(study, SPACE, budget, seed, P, lambda batch, rivals: list(pool.map(lambda d: one(d, rivals, seconds), batch)))


if __name__ == "__main__":
    search(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))

"Small seeded training sets, shared by the tests of the model rooms."

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import from_ms
from cryptoalgo.core.sections import ModelParams

HOUR = 3_600_000
SMALL = {
    "name": "lightgbm", "n_estimators": 30, "max_depth": 3, "num_leaves": 8, "learning_rate": 0.1, "min_child_samples": 30,
    "lambda_l1": 0.1, "lambda_l2": 0.1, "max_bin": 63, "calibration": "isotonic", "calibration_folds": 3, "min_rows": 400,
    "min_class_rows": 15, "min_auc": 0.5,
}


def make_rows(n=3000, horizon=12, seed=1, skill=1.0):
    "Features with memory and holes; labels that overlap over `horizon` bars, end at different times, with one in ten vertical."
    rng = np.random.default_rng(seed)
    times, x = from_ms(1_704_067_200_000 + HOUR * np.arange(n)), rng.standard_normal((n, 6)).cumsum(axis=0)
    x = (x - pd.DataFrame(x).ewm(span=48).mean().to_numpy()) / 5
    ret = 0.004 * (skill * (x[:, 0] - 0.5 * x[:, 1]) + 2 * rng.standard_normal(n))
    x[rng.random(n) < 0.1, 4] = np.nan
    features = pd.DataFrame(x.astype("float32"), index=times, columns=[f"feature_{k}" for k in range(6)])
    held = pd.to_timedelta(rng.integers(1, horizon + 1, n), "h")
    labels = pd.DataFrame({
        "y": np.where(rng.random(n) < 0.1, 0.0, np.sign(ret)), "ret": ret, "t_start": times + pd.Timedelta("1h"),
        "t_end": times + pd.Timedelta("1h") + held, "weight": rng.uniform(0.1, 1.0, n)}, index=times)
    labels.iloc[-horizon - 1:] = None
    return features, labels


@pytest.fixture
def params():
    "`params(min_rows=10)` is the small model's parameters with differences."
    return lambda **changes: ModelParams(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def rows():
    "`rows(n=..., seed=...)` is a pair of Features and Labels."
    return make_rows

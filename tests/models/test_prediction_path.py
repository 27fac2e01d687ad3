"""What is for training alone cannot be reached on the way from bars to an answer: the contract, the imports, the names."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import ModelParams
from cryptoalgo.core.training_only import TRAINING_ONLY, refuse_training_only
from cryptoalgo.features import shared  # noqa: F401  (all features are declared)
from cryptoalgo.features.labels import direction_vote, triple_barrier
from cryptoalgo.features.registry import REGISTRY, Registry
from cryptoalgo.features.splits import split_indicator
from cryptoalgo.features.turning_points import turning_points
from cryptoalgo.features.weights import uniqueness_weights
from cryptoalgo.models.estimators import Model
from cryptoalgo.models.learners import Rows, rows_of

PARAMS = ModelParams(name="logistic", n_estimators=1, max_depth=1, num_leaves=2, learning_rate=0.1, min_child_samples=1, lambda_l1=0,
                     lambda_l2=0.1, max_bin=15, calibration="platt", calibration_folds=2, min_rows=10, min_class_rows=2, min_auc=0.0)
TIMES = pd.date_range("2024-01-01", periods=400, freq="h", tz="UTC", unit="ms", name="event_time")


def contract():
    "The import contract of the prediction path."
    settings = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    found = [c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "forbidden"]
    assert len(found) == 1
    return found[0]


def loaded_with(modules):
    "Modules of ours that a fresh interpreter holds after importing some."
    code = f"import importlib, json, sys\nfor m in {modules!r}: importlib.import_module(m)\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    return {m for m in json.loads(done.stdout) if m.startswith("cryptoalgo")}


def test_the_contract_names_the_whole_path_and_all_that_is_for_training():
    path, barred = contract()["source_modules"], contract()["forbidden_modules"]
    assert {f"cryptoalgo.features.{m}" for m in ("labels", "turning_points", "weights", "leakage")} <= set(barred)
    assert {f"cryptoalgo.{m}" for m in ("features.registry", "features.ohlcv", "features.shared", "features.context",
                                        *(f"models.{m}" for m in ("learners", "linear", "boosting", "histogram", "calibration", "samples",
                                                                   "members", "ensembles", "estimators")))} <= set(path)


def test_a_fresh_interpreter_on_the_prediction_path_holds_no_training_only_module():
    path, barred = contract()["source_modules"], contract()["forbidden_modules"]
    loaded = loaded_with(path)
    assert set(path) <= loaded and not set(barred) & loaded
    assert set(barred) & loaded_with(["cryptoalgo.features.labels"])  # the look itself can fail


def features():
    return pd.DataFrame(np.random.default_rng(1).normal(size=(400, 3)).astype("float32"), TIMES, ["rsi_14", "stoch", "di_diff"])


@pytest.fixture(scope="module")
def model():
    x = features()
    up = x["rsi_14"] + np.random.default_rng(2).normal(size=400) > 0
    labels = pd.DataFrame({"y": np.where(up, 1.0, -1.0), "t_start": TIMES + pd.Timedelta("1h"), "t_end": TIMES + pd.Timedelta("2h")}, TIMES)
    fitted = Model(PARAMS).fit(x, labels)
    assert fitted.refusal_ is None and fitted.predict_proba(x).shape == (400,)
    return fitted


@pytest.mark.parametrize("name", TRAINING_ONLY)
def test_a_training_only_name_is_refused_by_registry_rows_and_model(name, model):
    words = rf"feature '{name}': a training-only column \(.*; leave it out, or choose another name$"
    carrying = features().assign(**{name: np.float32(0)})
    with pytest.raises(InputError, match=words):
        Registry().feature(group="x", meaning="x", name=name)(lambda close: close)
    for call in (lambda: rows_of(carrying), lambda: model.predict_proba(carrying), lambda: Model(PARAMS).fit(carrying, carrying),
                 lambda: Rows(carrying.to_numpy(), tuple(carrying), np.arange(400))):
        with pytest.raises(InputError, match=words):
            call()


def test_times_and_text_are_refused_by_name_and_not_by_kind(model):
    for late in (features().assign(t_end=TIMES), features().assign(split="train")):
        with pytest.raises(InputError, match="training-only column"):
            model.predict_proba(late)


def test_the_list_holds_every_column_that_training_makes_and_no_feature():
    rng = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 400)))
    bars = pd.DataFrame({"open": close, "high": close * 1.01, "low": close * 0.99, "close": close, "volume": 1.0,
                         "available_time": TIMES + pd.Timedelta("1h"), "is_filled": False}, TIMES)
    labels = triple_barrier(bars, 4, 2, 2).dropna()
    made = {*labels, *direction_vote(bars), *turning_points(bars), uniqueness_weights(labels, TIMES).name, split_indicator(TIMES, []).name}
    assert made == set(TRAINING_ONLY)
    refuse_training_only([f.name for f in REGISTRY.select()], "feature")

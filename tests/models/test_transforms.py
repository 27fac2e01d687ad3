"Whatever our learners, calibrators and bins fit stands trial as a transform: no answer moves with a row that its fold may not see."

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import to_ms
from cryptoalgo.features.fitted import differences
from cryptoalgo.features.splits import PurgedKFold, WalkForward
from cryptoalgo.features.weights import uniqueness_weights
from cryptoalgo.models.estimators import Model
from cryptoalgo.models.learners import rows_of
from cryptoalgo.models.members import LEARNERS as ALL
from cryptoalgo.models.samples import directed
from cryptoalgo.models.training import walk_forward

LEARNERS = [name for name in ALL if name != "attention"]  # it answers from many rows, which this trial takes for a leak; its causality has tests of its own

HOUR = 3_600_000


def few(params, name, **changes):
    "The parameters of a learner, with fewer trees where they take long."
    return params(name=name, **({"n_estimators": 5} if name in ("xgboost", "hist_gradient_boosting") else {}), **changes)


def found(fn, features, labels, fold, cuts=(0, 40, -1)):
    "What a trial of one fold finds, as (test, column)."
    at = [int(fold.test_rows()[k]) for k in cuts]
    return {(d.test, d.column) for d in differences(fn, features, labels, to_ms(features.index) + HOUR, fold, at, np.random.default_rng(0))}


def last_fold(labels, splitter=None):
    return (splitter or WalkForward("anchored", 60, 2, 12)).split(labels["t_start"], labels["t_end"], labels.index)[-1]


def learned(labels, fold):
    "Training rows with a direction."
    train = fold.train_rows()
    return train[directed(labels.iloc[train])]


def margins(name, params, window=learned, cut=learned):
    "A learner's margin of every row: what it fits on and what its bins are cut on are named apart."
    def fn(features, labels, fold):
        rows, at = rows_of(features), window(labels, fold)
        learner = ALL[name](few(params, name), 5)
        rows = learner.cut(rows, cut(labels, fold))
        up, weight = (labels["y"].iloc[at] > 0).to_numpy(), labels["weight"].iloc[at].to_numpy()
        return pd.DataFrame({"margin": learner.fit(rows.take(at), up, weight).margin(rows)}, features.index)
    return fn


def everything(labels, fold):
    return directed(labels)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("splitter", [None, WalkForward("sliding", 60, 2, 12), PurgedKFold(3, 12)])
def test_learners_their_standardisation_and_their_bins_see_training_rows_only(name, splitter, rows, params):
    features, labels = rows(2400)
    assert not found(margins(name, params), features, labels, last_fold(labels, splitter))


def test_a_learner_that_is_fitted_or_cut_on_all_rows_is_found(rows, params):
    features, labels = rows(2400)
    fold, both = last_fold(labels), {("transform_train", "margin"), ("transform_test", "margin")}
    labels["weight"] = labels["weight"].fillna(1.0)
    assert found(margins("lightgbm", params, cut=everything), features, labels, fold) == both  # labels are not even touched
    for name in LEARNERS:
        wild = lambda x, z, f: margins(name, params, everything)(x, z.assign(weight=1.0), f)  # noqa: E731
        assert found(wild, features, labels, fold) == both


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("calibration", ["isotonic", "platt"])
def test_a_calibrated_model_sees_training_rows_only(name, calibration, rows, params):
    features, labels = rows(2400)

    def fn(x, z, fold):
        at, asked = learned(z, fold), np.concatenate([fold.train_rows(), fold.test_rows()])
        model = Model(few(params, name, calibration=calibration), 7).fit(rows_of(x).take(at), z.iloc[at])
        assert model.refusal_ is None
        return pd.DataFrame({"prob": model.predict_proba(x.iloc[asked])}, x.index[asked])

    assert not found(fn, features, labels, last_fold(labels))


@pytest.mark.parametrize("name", LEARNERS)
def test_the_walk_forward_as_it_is_run_sees_no_later_row(name, rows, params):
    features, labels = rows(2400)
    folds = WalkForward("anchored", 60, 2, 12).split(labels["t_start"], labels["t_end"], labels.index)

    def fn(x, z, fold):
        z = z.where(z["t_end"].notna())  # a label without an end is none
        return walk_forward(x, z, folds[: fold.number + 1], few(params, name), 7).predictions[["prob"]].loc[x.index[fold.test_rows()[0]] :]

    assert not found(fn, features, labels, folds[0], (0, -1))


def test_weights_of_training_labels_are_told_from_weights_of_all(rows):
    features, labels = rows(1800)
    fold = last_fold(labels)

    def weights(of):
        return lambda x, z, f: uniqueness_weights(z.iloc[of(f)].dropna(subset=["y", "t_end"]), x.index).to_frame("weight").reindex(x.index[f.train_rows()])

    assert not found(weights(lambda f: f.train_rows()), features, labels, fold)
    assert found(weights(lambda f: np.arange(f.test_rows()[-1])), features, labels, fold) == {("transform_train", "weight")}

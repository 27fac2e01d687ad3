"Walking forward: answers out of sample, deaf to what comes later, and a table that says why a fold is silent."

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.features.splits import CombinatorialPurged, PurgedKFold, WalkForward
from cryptoalgo.models.estimators import Model
from cryptoalgo.models.training import final_fit, walk_forward


def split(labels, mode="anchored", n_folds=3, days=60):
    return WalkForward(mode, days, n_folds, 12).split(labels["t_start"], labels["t_end"], labels.index)


@pytest.mark.parametrize("mode", ["anchored", "sliding"])
def test_every_test_row_is_answered_once(mode, rows, params):
    features, labels = rows()
    folds, steps = split(labels, mode), []
    t = walk_forward(features, labels, folds, params(), 42, lambda done, n: steps.append((done, n)))
    want = np.concatenate([f.test_rows() for f in folds])
    assert t.predictions.index.equals(features.index[want])  # the last rows have no label, and an answer
    assert np.isfinite(t.predictions["prob"]).all() and t.predictions["prob"].between(0, 1).all()
    assert t.predictions["fold"].tolist() == np.repeat([0, 1, 2], [f.test_rows().size for f in folds]).tolist()
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert t.refusals == {}
    assert (t.folds["train_known"] < t.folds["test_first"]).all()
    by_id = t.predictions.groupby("fold")["model_id"].unique()
    assert [ids.tolist() for ids in by_id] == [[i] for i in t.folds["model_id"]]


@pytest.mark.parametrize("name", ["lightgbm", "logistic"])
def test_a_fold_is_deaf_to_everything_after_its_test_block(name, rows, params):
    features, labels = rows()
    folds = split(labels)
    base = walk_forward(features, labels, folds, params(name=name), 42)
    for k, fold in enumerate(folds[:2]):
        end = fold.test_rows()[-1] + 1
        later, others = features.copy(), labels.copy()
        later.iloc[end:] = np.float32(7.0)
        others.iloc[end:, :2] = -1.0
        again = walk_forward(later, others, folds, params(name=name), 42)
        early = base.predictions["fold"] <= k
        pd.testing.assert_frame_equal(base.predictions[early], again.predictions[again.predictions["fold"] <= k])


def test_a_fold_is_deaf_to_the_labels_of_its_own_test_block(rows, params):
    features, labels = rows()
    folds = split(labels)
    others = labels.copy()
    others.iloc[folds[-1].test_rows(), :2] = 1.0
    a, b = (walk_forward(features, x, folds, params(), 42) for x in (labels, others))
    pd.testing.assert_frame_equal(a.predictions, b.predictions)
    assert a.folds["model_id"].equals(b.folds["model_id"])


def test_an_answer_is_deaf_to_later_features(rows, params):
    features, labels = rows()
    folds = split(labels)
    cut = folds[-1].test_rows()[100]
    later = features.copy()
    later.iloc[cut:] = np.float32(-3.0)
    a, b = (walk_forward(x, labels, folds, params(), 42).predictions for x in (features, later))
    before = a.index < features.index[cut]
    pd.testing.assert_frame_equal(a[before], b[before])


def test_the_models_are_those_of_a_plain_fit_with_the_first_windows_bins(rows, params):
    features, labels = rows()
    folds = split(labels)
    t = walk_forward(features, labels, folds, params(), 42)
    train = folds[0].train_rows()
    assert t.folds["model_id"].iloc[0] == Model(params(), 42).fit(features.iloc[train], labels.iloc[train]).model_id_


def test_bins_are_cut_again_when_a_feature_begins(rows, params):
    "A feature recorded only from the second window on is of use from then on."
    features, labels = rows(4000)
    folds = split(labels, n_folds=4)
    strong = features.copy()
    strong["feature_5"] = (labels["ret"].fillna(0) * 100).astype("float32")
    strong.iloc[: folds[0].train_rows()[-1] + 40, 5] = np.nan
    t = walk_forward(strong, labels, folds, params(), 42)
    aucs = [t.scores[str(k)]["auc"].value for k in range(4)]
    assert aucs[0] < 0.8 < min(aucs[1:])


def test_one_pass_of_purged_folds_may_walk_too(rows, params):
    features, labels = rows(2000)
    folds = PurgedKFold(3, 12).split(labels["t_start"], labels["t_end"], labels.index)
    assert len(walk_forward(features, labels, folds, params(), 42).predictions) == 2000
    twice = CombinatorialPurged(4, 2, 12).split(labels["t_start"], labels["t_end"], labels.index)
    with pytest.raises(InputError, match="tested by two folds"):
        walk_forward(features, labels, twice, params(), 42)


def test_a_refused_fold_is_silent_and_says_why(rows, params):
    features, labels = rows()
    t = walk_forward(features, labels, split(labels), params(min_rows=1600), 42)
    assert list(t.refusals) == [0] and "1600 are needed" in t.refusals[0]
    assert set(t.predictions["fold"]) == {1, 2} and set(t.scores) == {"overall", "1", "2"}
    assert pd.isna(t.folds.loc[0, "model_id"]) and t.folds.loc[0, "train_rows"] == 0


def test_all_refused_is_an_empty_answer(rows, params):
    features, labels = rows()
    t = walk_forward(features, labels, split(labels), params(min_rows=10_000), 42)
    assert t.predictions.empty and list(t.predictions) == ["prob", "fold", "model_id"] and len(t.refusals) == 3
    assert t.scores["overall"]["auc"].value is None
    assert final_fit(features, labels, params(min_rows=10_000), 42).refusal_.rule == "min_rows"


def test_scores_are_those_of_the_predictions(rows, params):
    from cryptoalgo.models.scores import score

    features, labels = rows()
    t = walk_forward(features, labels, split(labels), params(), 42)
    known = labels.loc[t.predictions.index]
    assert t.scores["overall"] == score(t.predictions["prob"], known["y"], known["ret"], 12)
    assert t.scores["overall"]["auc"].low > 0.5


def test_walking_twice_gives_the_same_and_the_final_model_uses_all(rows, params):
    features, labels = rows()
    a, b = (walk_forward(features, labels, split(labels), params(), 42) for _ in range(2))
    pd.testing.assert_frame_equal(a.predictions, b.predictions)
    pd.testing.assert_frame_equal(a.folds, b.folds)
    final = final_fit(features, labels, params(), 42)
    assert final.trained_["rows"] == (labels["y"].fillna(0) != 0).sum()


def test_labels_of_other_bars_are_refused(rows, params):
    features, labels = rows()
    with pytest.raises(InputError, match="on other bars"):
        walk_forward(features, labels.shift(freq="1h"), split(labels), params(), 42)

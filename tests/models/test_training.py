"Walking forward: answers out of sample, deaf to what comes later, and a table that says why a fold is silent."

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.features.splits import CombinatorialPurged, PurgedKFold, WalkForward
from cryptoalgo.models.estimators import Model
from cryptoalgo.models.return_scores import Baseline, score_returns
from cryptoalgo.models.samples import directed, longest_label
from cryptoalgo.models.scores import score
from cryptoalgo.models.training import KEPT, Bins, final_fit, walk_forward


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
    tested = sum(f.test_rows().size for f in split(labels)[1:]) / sum(f.test_rows().size for f in split(labels))
    whole = score(t.predictions["prob"], labels.loc[t.predictions.index, "y"], labels.loc[t.predictions.index, "ret"], longest_label(labels))["quality"]
    assert tested < 1 and t.scores["overall"]["quality"].value == pytest.approx(whole.value - 5 * (1 - tested), abs=0.05)  # a third was not forecast


def test_all_refused_is_an_empty_answer(rows, params):
    features, labels = rows()
    t = walk_forward(features, labels, split(labels), params(min_rows=10_000), 42)
    assert t.predictions.empty and list(t.predictions) == ["prob", "yhat", "spread", "fold", "model_id"] and len(t.refusals) == 3
    assert t.scores["overall"]["auc"].value is None
    assert final_fit(features, labels, params(min_rows=10_000), 42).refusal_.rule == "min_rows"


def test_scores_are_those_of_the_predictions(rows, params):
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


def same(a, b):
    "Two walks left the same bytes."
    pd.testing.assert_frame_equal(a.predictions, b.predictions, check_exact=True)
    pd.testing.assert_frame_equal(a.folds, b.folds, check_exact=True)
    assert a.scores == b.scores
    return True


MANY = {"name": "stack", "members": ("lightgbm", "ridge", "xgboost", "hist_gradient_boosting", "logistic"), "offsets_days": (0, 3), "n_estimators": 4}


@pytest.mark.parametrize("change", [{}, MANY, {"task": "return", "quantised": True}])
def test_workers_change_nothing_but_the_time(change, rows, params):
    features, labels = rows(2000)
    folds, told = split(labels, days=35), []
    one = walk_forward(features, labels, folds, params(**change), 42)
    assert same(one, walk_forward(features, labels, folds, params(**change), 42, lambda done, n: told.append((done, n)), workers=2))
    assert told == [(k, 3) for k in range(1, 4)]
    with ThreadPoolExecutor(3) as pool:
        assert same(one, walk_forward(Bins(features), labels, folds, params(**change), 42, executor=pool))
        assert pool.submit(int, "1").result() == 1  # it is the caller's to close


def test_processes_learn_the_same_bytes_and_a_fork_is_refused(rows, params):
    features, labels = rows(1500)
    folds = split(labels, days=30)
    one = walk_forward(features, labels, folds, params(**MANY), 42)
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
        assert same(one, walk_forward(features, labels, folds, params(**MANY), 42, executor=pool))
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool, pytest.raises(InputError, match="forkserver"):
        walk_forward(features, labels, folds, params(), 42, executor=pool)
    with pytest.raises(InputError, match="workers = 0"):
        walk_forward(features, labels, folds, params(), 42, workers=0)


def test_reused_bins_are_as_good_as_fresh_ones(rows, params):
    "Whatever was walked before on the same rows, with other windows, bins, learners or seeds, and however much was forgotten since."
    features, labels = rows(2400)
    features.iloc[:1000, 5] = np.nan
    folds = split(labels, days=35)
    fresh = {name: walk_forward(features, labels, folds, params(name=name, n_estimators=8), 42) for name in ("lightgbm", "hist_gradient_boosting")}
    bins = Bins(features)
    assert len({id(origin) for origin in bins.plan([f.train_rows() for f in folds])}) > 1
    before = [(labels, folds[1:], {}, 42), (labels, split(labels, "sliding", 3, 30), {"max_bin": 15}, 42), (labels, folds, {"max_bin": 15}, 7)]
    for other, some, change, seed in before:
        for name in fresh:
            walk_forward(bins, other, some, params(**{"name": name, "n_estimators": 8, **change}), seed)
        for name, want in fresh.items():
            assert same(want, walk_forward(bins, labels, folds, params(name=name, n_estimators=8), 42, workers=2))
    assert len(bins._kept) <= KEPT


def test_a_meta_label_learns_and_scores_success(rows, params):
    features, labels = rows()
    side = np.where(np.arange(len(labels)) % 5 == 0, 0.0, np.sign(features["feature_0"].to_numpy("float64")))
    right = labels.assign(y=(side * labels["ret"] > 0).astype("float64"), side=side)
    right.loc[(side == 0) | labels["t_end"].isna(), ["y", "ret", "t_start", "t_end"]] = None
    t = walk_forward(features, right, split(right), params(), 42)
    learned = right.loc[right["y"].notna()]
    assert t.folds["train_rows"].iloc[-1] < len(learned) and (t.folds["train_positives"] < t.folds["train_rows"]).all()
    known = right.loc[t.predictions.index].dropna(subset=["y"])
    assert t.scores["overall"]["auc"].n == len(known)
    assert t.predictions["prob"].mean() == pytest.approx(learned["y"].mean(), abs=0.06)
    assert len(t.predictions) == sum(f.test_rows().size for f in split(right))  # every row is answered, voted or not
    assert final_fit(features, right, params(), 42).trained_["rows"] == len(learned)


def test_a_return_is_learned_from_zeros_too_and_becomes_a_probability(rows, params):
    features, labels = rows()
    amounts = labels.assign(y=(labels["ret"] / 0.01).where(labels["y"] != 0, 0.0).where(labels["y"].notna()))
    t = walk_forward(features, amounts, split(labels), params(task="return"), 42)
    assert t.refusals == {} and np.isfinite(t.predictions["yhat"]).all() and t.predictions["prob"].between(0, 1).all()
    assert t.scores["overall"]["auc"].low > 0.5
    last = split(labels)[-1]
    assert t.folds["train_rows"].iloc[-1] == amounts["y"].iloc[last.train_rows()].notna().sum() > directed(amounts.iloc[last.train_rows()]).size
    assert np.corrcoef(t.predictions["yhat"], amounts["y"].loc[t.predictions.index].fillna(0))[0, 1] > 0.2
    order = np.argsort(t.predictions["yhat"][t.predictions["fold"] == 0].to_numpy())
    assert (np.diff(t.predictions["prob"][t.predictions["fold"] == 0].to_numpy()[order]) >= 0).all()  # a rising function of the forecast


def test_targets_that_are_not_numbers_are_an_error(rows, params):
    features, labels = rows()
    labels.iloc[700, 0] = np.nan
    with pytest.raises(InputError, match=re.escape(f"y at {labels.index[700]} is nan though its end is known")):
        walk_forward(features, labels, split(labels), params(), 42)


def test_a_forecast_of_the_return_is_scored_against_what_its_fold_was_trained_on(rows, params):
    features, labels = rows()
    labels = labels.assign(y=np.where(labels["y"] == 0, 0.0, labels["ret"] / 0.008).astype(float)).mask(labels["ret"].isna())
    labels["t_start"], labels["t_end"] = (rows()[1][name] for name in ("t_start", "t_end"))
    folds = split(labels)
    t = walk_forward(features, labels, folds, params(task="return"), 42)
    for fold in folds:
        window = labels.iloc[fold.train_rows()]
        known = window[window["y"].notna()]
        row = t.folds.loc[fold.number]
        assert row["y_mean"] == pytest.approx(known["y"].mean()) and row["y_signal_mean"] == pytest.approx(known["y"][known["y"] != 0].mean())
        model = Model(params(task="return"), 42).fit(features.loc[known.index], known)
        said, on = model.answers(features.loc[known.index]).yhat, (known["y"] != 0).to_numpy()
        y = known["y"].to_numpy()
        want = 1 - ((y - said)[on] ** 2).sum() / ((y[on] - row["y_signal_mean"]) ** 2).sum()
        assert row["learned_r2"] == pytest.approx(want, abs=0.03)  # the walk's bins are those of its first window
    base = Baseline(*(t.predictions["fold"].map(t.folds[name]).to_numpy() for name in ("y_mean", "y_signal_mean")))
    y = labels["y"].loc[t.predictions.index]
    want = score_returns(t.predictions["yhat"], y, longest_label(labels), base)
    assert all(t.scores["overall"][name] == score for name, score in want.items())
    assert t.scores["overall"]["signal_r2"].n == int((y.fillna(0) != 0).sum()) < t.scores["overall"]["r2"].n
    assert t.folds["learned_r2"].mean() > t.scores["overall"]["signal_r2"].value


def test_a_direction_has_no_scores_of_a_return(rows, params):
    features, labels = rows()
    t = walk_forward(features, labels, split(labels), params(), 42)
    assert "r2" not in t.scores["overall"] and "learned_r2" not in t.folds


def test_a_refused_return_keeps_its_means_and_scores_with_reasons(rows, params):
    features, labels = rows()
    t = walk_forward(features, labels, split(labels), params(task="return", min_rows=10**6), 42)
    assert t.folds["learned_r2"].isna().all() and t.folds["y_mean"].notna().all()
    assert all(s.value is None and s.reason for s in t.scores["overall"].values())


def test_bins_are_cut_again_when_the_first_value_is_missing(rows, params):
    features, labels = rows(2400)
    features = features.fillna(0.0)
    folds = split(labels, days=35)
    windows = [fold.train_rows() for fold in folds]
    assert len({id(origin) for origin in Bins(features).plan(windows)}) == 1
    features.iloc[windows[1][-1], 3] = np.nan
    assert [len(origin) for origin in Bins(features).plan(windows)] == [len(windows[0]), len(windows[1]), len(windows[1])]
    assert walk_forward(features, labels, folds, params(), 42).refusals == {}

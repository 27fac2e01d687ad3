"Members from several beginnings, made one: what each learned, how they are combined, and that nothing outside the window has a say."

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from cryptoalgo.core.errors import FitError, InputError
from cryptoalgo.models import members
from cryptoalgo.models.ensembles import ENSEMBLES, Stack, parts_of
from cryptoalgo.models.estimators import Model, learning_curve
from cryptoalgo.models.learners import rows_of
from cryptoalgo.models.members import LEARNERS

ALL = tuple(LEARNERS)
DAY = pd.Timedelta("1D")


def combined(params, name="average", learners=("lightgbm",), offsets=(0, 3, 6), **changes):
    return params(name=name, members=learners, offsets_days=offsets, n_estimators=8, **changes)


def test_an_ensemble_of_one_is_the_one(rows, params):
    features, labels = rows()
    alone = Model(params(n_estimators=8), 42).fit(features, labels)
    one = Model(combined(params, offsets=(0,)), 42).fit(features, labels)
    for a, b in zip(one.answers(features), alone.answers(features)):
        assert np.array_equal(a, b, equal_nan=True)
    assert (one.answers(features).spread == 0).all() and np.isnan(one.answers(features).yhat).all()
    assert one.files()["lightgbm-0d/model.txt"] == alone.files()["model.txt"]
    assert one.importance_["feature"].tolist() == alone.importance_["feature"].tolist()


def test_a_members_window_begins_later_and_it_is_calibrated_inside_it(rows, params):
    features, labels = rows()
    model = Model(combined(params, learners=("lightgbm", "ridge"), offsets=(0, 5, 11)), 42).fit(features, labels)
    answers, each = model.answers(features), []
    first = labels.index[np.flatnonzero(labels["y"].fillna(0) != 0)[0]]
    for own, days, folder in model.parts:
        late = features.index >= first + days * DAY
        alone = Model(params(name=own.name, n_estimators=8), 42)
        alone.fit(rows_of(features).take(np.flatnonzero(late)), labels[late])
        mine = {name.removeprefix(folder): data for name, data in model.files().items() if name.startswith(folder)}
        if own.name == "ridge":  # LightGBM's bins are the ensemble's, cut from its whole window
            assert mine == {name: data for name, data in alone.files().items() if name != "model.json"}
        each.append(model.members_[len(each)].calibrator_.predict(model.members_[len(each)].learner_.margin(rows_of(features))))
    assert np.array_equal(answers.prob, np.mean(np.column_stack(each), axis=1))
    assert np.array_equal(answers.spread, np.std(np.column_stack(each), axis=1)) and (answers.spread > 0).all()


@pytest.mark.parametrize("name", ENSEMBLES)
@pytest.mark.parametrize("task", ["direction", "return"])
def test_an_ensemble_of_every_learner_is_read_back_bit_for_bit(name, task, rows, params, tmp_path):
    features, labels = rows(1500)
    learners = tuple(n for n in ALL if (n, task) != ("logistic", "return"))
    model = Model(combined(params, name, learners, (0, 3), task=task, calibration="platt"), 42).fit(features, labels)
    again = Model.load(model.save(tmp_path))
    features.iloc[7] = np.nan
    for a, b in zip(again.answers(features), model.answers(features)):
        assert np.array_equal(a, b, equal_nan=True) and np.isnan(a[7])
    assert again.files() == model.files() and again.model_id_ == model.model_id_
    assert np.isfinite(model.answers(features).yhat).sum() == (1499 if task == "return" else 0)
    assert model.importance_["share"].sum() == pytest.approx(1)
    curve = learning_curve(model, features.fillna(0), labels)
    assert curve["iteration"].tolist() == list(range(1, 9)) and np.isfinite(curve.to_numpy()).all()


@pytest.mark.parametrize("task", ["direction", "return"])
@pytest.mark.parametrize("calibration", ["isotonic", "platt"])
def test_nothing_after_the_window_reaches_members_calibrators_or_stack(calibration, task, rows, params):
    features, labels = rows(1800)
    window, ids = np.arange(300, 1500), []
    learners = tuple(n for n in ALL if (n, task) != ("logistic", "return"))
    for noise in (0.0, 9.0):
        other, others = features.copy(), labels.copy()
        outside = np.setdiff1d(np.arange(len(features)), window)
        other.iloc[outside] += np.float32(noise)
        others.iloc[outside, :2] = -1.0 if noise else 1.0
        model = Model(combined(params, "stack", learners, (0, 2), calibration=calibration, task=task), 42)
        ids.append(model.fit(rows_of(other).take(window), others.iloc[window]).files())
    assert ids[0] == ids[1]


def test_held_out_probabilities_come_from_rows_whose_labels_are_not_near(rows, params):
    "A calibrator that is fitted for one block does not move with labels of that block, or near it."
    features, labels = rows()
    member = members.Member(params(n_estimators=8), 1)
    sample = members.Sample.of(rows_of(features), labels, "direction")
    member.cross(sample)
    before, block = member.held_out(sample), member.folds_[1].test_rows()
    near = np.setdiff1d(np.arange(sample.up.size), member.folds_[1].train_rows())
    assert set(block) < set(near)
    other = replace(sample, up=np.where(np.isin(np.arange(sample.up.size), near), ~sample.up, sample.up))
    after = member.held_out(other)
    assert np.array_equal(before[block], after[block])
    assert not np.array_equal(before, after)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.0, 0.01, 1.0]))
def test_no_other_weights_of_one_sign_are_better(seed, m, penalty):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(300)
    prob = expit(truth[:, None] * rng.uniform(0, 1, m) + 0.8 * rng.standard_normal((300, m)))
    up, weight = rng.random(300) < expit(truth), rng.uniform(0.1, 1, 300)
    from conftest import SMALL

    from cryptoalgo.core.sections import ModelParams
    stack = Stack(ModelParams(**{**SMALL, "lambda_l2": penalty})).fit(prob, up, weight)
    assert (stack.weights_ >= 0).all()

    def loss(b, w):
        margin = np.where(up, 1, -1) * (logit(prob) @ w + b)
        return np.average(np.logaddexp(0, -margin), weights=weight) + penalty / 2 * ((w - 1 / m) ** 2).sum()

    best = loss(stack.intercept_, stack.weights_)
    for _ in range(30):
        step = rng.standard_normal(m + 1) * rng.choice([1e-3, 1e-1, 1.0])
        assert loss(stack.intercept_ + step[0], np.maximum(stack.weights_ + step[1:], 0)) > best - 1e-9


def test_probabilities_of_an_ensemble_are_meant_on_later_rows(rows, params):
    features, labels = rows(9000, horizon=1)
    known = labels["y"].fillna(0) != 0
    past, later = known & (np.arange(9000) < 6000), known & (np.arange(9000) > 6000)
    up = (labels["y"][later] > 0).to_numpy()
    for name in ENSEMBLES:
        model = Model(combined(params, name, ("lightgbm", "logistic"), (0, 3)), 1).fit(features[past], labels[past])
        prob = model.predict_proba(features[later])
        assert members_ece(prob, up) < 0.05 and prob[up].mean() > prob[~up].mean() + 0.02


def members_ece(prob, up):
    from cryptoalgo.models.scores import ece
    return ece(prob, up).value


def test_a_window_too_short_for_a_late_member_is_refused(rows, params):
    features, labels = rows(1000)
    model = Model(combined(params, offsets=(0, 30)), 42).fit(features, labels)
    assert model.refusal_.rule == "min_rows"
    assert Model(combined(params, min_auc=0.99), 42).fit(features, labels).refusal_.rule == "min_auc"


@pytest.mark.parametrize("change, says", [
    ({"name": "avrage"}, "did you mean 'average'"), ({"learners": ()}, "at least one of each"), ({"offsets": ()}, "at least one of each"),
    ({"learners": ("ridge", "ridge")}, "named once"), ({"learners": ("stack",)}, "a member is a learner"), ({"offsets": (-1,)}, "0 days or more"),
    ({"learners": ("lightgmb",)}, "did you mean 'lightgbm'"), ({"learners": ("logistic",), "task": "return"}, "for a return use ridge"),
])
def test_what_no_ensemble_can_be_made_of_is_one_line(change, says, params):
    with pytest.raises(InputError, match=says) as e:
        Model(combined(params, **change))
    assert "\n" not in str(e.value)


def test_files_named_outside_the_folder_are_not_read(rows, params, tmp_path):
    model = Model(params(n_estimators=8), 42).fit(*rows(1500))
    folder = model.save(tmp_path / "a" / "b")
    about = json.loads((folder / "model.json").read_text())
    about["sha256"]["../secret"] = "0" * 64
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="not a model's description"):
        Model.load(folder)


def test_a_fit_that_came_to_nothing_is_a_fit_error(rows, params, monkeypatch):
    class Full(LEARNERS["ridge"]):
        def fit(self, rows, target, weight):
            raise MemoryError

    class Endless(LEARNERS["ridge"]):
        def margin(self, rows):
            return np.full(rows.at.size, np.inf)

    for kind, says in ((Full, "no memory left"), (Endless, "margins without end")):
        monkeypatch.setitem(members.LEARNERS, "ridge", kind)
        with pytest.raises(FitError, match=says) as e:
            Model(params(name="ridge")).fit(*rows(1500))
        assert "\n" not in str(e.value)


def test_a_learner_that_is_silent_on_some_rows_leaves_them_without_an_answer(rows, params, monkeypatch):
    class Late(LEARNERS["ridge"]):
        def margin(self, rows):
            return np.where(rows.at < 200, np.nan, super().margin(rows))

    monkeypatch.setitem(members.LEARNERS, "ridge", Late)
    features, labels = rows(2000)
    for name in ("ridge", "stack", "average"):
        model = Model(combined(params, name, ("lightgbm", "ridge"), (0,)), 42).fit(features, labels)
        assert model.refusal_ is None
        for column in (model.answers(features).prob, model.answers(features).spread):
            assert np.isnan(column[:200]).all() and np.isfinite(column[200:]).all()


def test_a_learner_that_never_answers_is_refused_whatever_the_floor(rows, params, monkeypatch):
    class Silent(LEARNERS["ridge"]):
        def margin(self, rows):
            return np.full(rows.at.size, np.nan)

    monkeypatch.setitem(members.LEARNERS, "ridge", Silent)
    for name in ("ridge", "average"):
        assert Model(combined(params, name, ("ridge",), (0,), min_auc=0.0)).fit(*rows(1500)).refusal_ is not None


def test_members_are_named_by_their_folders(params):
    assert [folder for *_, folder in parts_of(combined(params, learners=("ridge", "xgboost"), offsets=(0, 3)))] == [
        "ridge-0d/", "ridge-3d/", "xgboost-0d/", "xgboost-3d/"]
    assert parts_of(params()) == [(params(), 0, "")]

"A model's calibration stays inside its window; its bytes stay the same; what cannot be learned is refused."

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cryptoalgo.core.clock import to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.models import members
from cryptoalgo.models.estimators import Model, learning_curve, longest_label
from cryptoalgo.models.boosting import LightGBM
from cryptoalgo.models.learners import rows_of
from cryptoalgo.models.scores import auc, ece


@pytest.fixture
def fitted(rows, params):
    features, labels = rows()
    return Model(params(), 42).fit(features, labels)


@pytest.mark.parametrize("name, calibration", [("lightgbm", "isotonic"), ("lightgbm", "platt"), ("logistic", "isotonic"),
                                               ("ridge", "platt"), ("xgboost", "isotonic"), ("hist_gradient_boosting", "isotonic")])
def test_saved_and_read_back_bit_for_bit(name, calibration, rows, params, tmp_path):
    features, labels = rows()
    model = Model(params(name=name, calibration=calibration), 42).fit(features, labels)
    again = Model.load(model.save(tmp_path / "new" / "model"))
    assert np.array_equal(again.predict_proba(features), model.predict_proba(features))
    assert again.model_id_ == model.model_id_
    assert again.files() == model.files()
    assert {p.name for p in (tmp_path / "new" / "model").iterdir()} == {model.members_[0].learner_.file, "calibrator.json", "model.json"}
    pd.testing.assert_frame_equal(again.importance_, model.importance_)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from conftest import SMALL, make_rows
from cryptoalgo.core.sections import ModelParams
from cryptoalgo.models.estimators import Model
print(*(Model(ModelParams(**{{**SMALL, "name": name}}), 42).fit(*make_rows()).model_id_ for name in ("lightgbm", "logistic")))
"""


def test_another_process_learns_the_same_bytes(rows, params):
    mine = [Model(params(name=name), 42).fit(*rows()).model_id_ for name in ("lightgbm", "logistic")]
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == mine
    assert Model(params(), 43).fit(*rows()).model_id_ != mine[0]


def test_nothing_outside_the_window_reaches_the_model(rows, params):
    features, labels = rows()
    window = np.arange(500, 2000)
    ids = []
    for noise in (0.0, 9.0):
        other, others = features.copy(), labels.copy()
        outside = np.setdiff1d(np.arange(len(features)), window)
        other.iloc[outside] += np.float32(noise)
        others.iloc[outside, 0] = -1.0 if noise else 1.0
        ids.append(Model(params(), 42).fit(rows_of(other).take(window), others.iloc[window]).files())
    assert ids[0] == ids[1]
    assert ids[0] == Model(params(), 42).fit(features.iloc[window], labels.iloc[window]).files()


def test_no_label_of_a_calibration_fold_overlaps_its_test_block(rows, params, monkeypatch):
    features, labels = rows()
    seen = []

    class Spy(LightGBM):
        def fit(self, rows, target, weight):
            seen.append(rows.at)
            return super().fit(rows, target, weight)

    monkeypatch.setitem(members.LEARNERS, "lightgbm", Spy)
    model = Model(params(), 42).fit(features, labels)
    known = np.flatnonzero(labels["y"].fillna(0) != 0)
    start, end = (to_ms(labels[c].iloc[known]) for c in ("t_start", "t_end"))
    assert len(model.members_[0].cross_) == 3 and len(seen) == 4
    for (_, test), matrix_rows in zip(model.members_[0].cross_, seen):
        train = np.searchsorted(known, matrix_rows)
        overlap = (start[train][:, None] < end[test]) & (end[train][:, None] > start[test])
        assert not overlap.any()
        after = start[train] > end[test].max()
        assert (start[train][after] >= end[test].max() + 12 * 3_600_000).all()
    assert np.array_equal(np.sort(np.concatenate([test for _, test in model.members_[0].cross_])), np.arange(known.size))


def test_probabilities_are_meant_on_rows_not_seen(rows, params):
    features, labels = rows(9000, horizon=1)
    known = labels["y"].fillna(0) != 0
    past, later = known & (np.arange(9000) < 6000), known & (np.arange(9000) > 6000)
    model = Model(params(n_estimators=150, num_leaves=16, max_depth=5), 1).fit(features[past], labels[past])
    prob, up = model.predict_proba(features[later]), (labels["y"][later] > 0).to_numpy()
    raw = expit(model.members_[0].learner_.margin(rows_of(features[later])))
    assert ece(prob, up).value < 0.05 and ece(prob, up).value < ece(raw, up).value
    assert auc(prob, up).low > 0.55


def test_calibration_brings_back_the_rate_that_balancing_took(rows, params):
    features, labels = rows(6000)
    rare = labels.assign(y=np.where(labels["y"].isna(), np.nan, np.where(labels["ret"] > 0.008, 1.0, -1.0)))
    model = Model(params(), 1).fit(features, rare)
    assert (rare["y"].dropna() > 0).mean() < 0.25
    assert model.predict_proba(features).mean() == pytest.approx((rare["y"].dropna() > 0).mean(), abs=0.03)


def test_vertical_and_missing_labels_are_left_out(rows, params):
    features, labels = rows()
    kept = labels["y"].fillna(0) != 0
    whole, part = (Model(params(), 42).fit(features[k], labels[k]) for k in (slice(None), kept))
    assert whole.trained_["rows"] == kept.sum()
    assert whole.model_id_ == part.model_id_


@pytest.mark.parametrize("change, spoil, rule", [
    ({"min_rows": 5000}, lambda y: y, "min_rows"),
    ({}, lambda y: y.where(y.isna(), 1.0), "min_class_rows"),
    ({"min_class_rows": 2000}, lambda y: y, "min_class_rows"),
    ({"min_auc": 0.9}, lambda y: y, "min_auc"),
    ({"calibration_folds": 2}, lambda y: y.where(y.isna(), np.sign(np.arange(len(y)) - 1480)), "calibration_folds"),
])
def test_refusals_are_outcomes(change, spoil, rule, rows, params):
    features, labels = rows()
    model = Model(params(**change), 42).fit(features, labels.assign(y=spoil(labels["y"])))
    assert model.refusal_.rule == rule and model.refusal_.reason
    with pytest.raises(InputError, match="refused"):
        model.predict_proba(features)


def test_an_empty_window_is_refused_not_a_crash(rows, params):
    features, labels = rows()
    assert Model(params()).fit(features[:0], labels[:0]).refusal_.rule == "min_rows"
    assert Model(params(min_rows=0)).fit(features[-5:], labels[-5:]).refusal_.rule == "min_class_rows"


def test_features_that_say_nothing_are_refused(rows, params):
    features, labels = rows()
    features[:] = np.float32(1.0)
    assert Model(params(min_auc=0.52)).fit(features, labels).refusal_.rule == "min_auc"


def test_a_row_without_any_value_has_no_answer(fitted, rows):
    features, _ = rows()
    features.iloc[5] = np.nan
    prob = fitted.predict_proba(features)
    assert np.isnan(prob[5]) and np.isfinite(np.delete(prob, 5)).all()
    assert fitted.predict_proba(features[:0]).shape == (0,)


def test_mistakes_are_named(fitted, rows, params):
    features, labels = rows()
    with pytest.raises(InputError, match=r"did you mean 'lightgbm'"):
        Model(params(name="lightgbn"))
    with pytest.raises(InputError, match="feature number 2 is feature_2, not feature_1"):
        fitted.predict_proba(features.drop(columns="feature_1"))
    with pytest.raises(InputError, match="5 features, not 6"):
        fitted.predict_proba(features.iloc[:, :5])
    with pytest.raises(InputError, match="2999 of labels"):
        Model(params()).fit(features, labels[1:])
    with pytest.raises(InputError, match="weight at 2024-01-01 10:00"):
        Model(params()).fit(features, labels.assign(y=1.0, weight=labels["weight"].where(np.arange(3000) != 10, -1.0)))
    with pytest.raises(InputError, match="not been fitted"):
        Model(params()).predict_proba(features)


@pytest.mark.parametrize("spoil, says", [
    (lambda f: (f / "model.txt").write_text("tree"), "changed after training"),
    (lambda f: (f / "calibrator.json").unlink(), "cannot be read"),
    (lambda f: (f / "model.json").write_text("{"), "not a model's description"),
    (lambda f: (f / "model.json").write_text("[]"), "not a model's description"),
    (lambda f: (f / "model.json").write_text(json.dumps(json.loads((f / "model.json").read_text()) | {"params": {}})), "description"),
    (lambda f: (f / "model.json").unlink(), "cannot be read"),
])
def test_a_spoilt_folder_is_refused_in_one_line(spoil, says, fitted, tmp_path):
    folder = fitted.save(tmp_path)
    spoil(folder)
    with pytest.raises(InputError, match=says) as e:
        Model.load(folder)
    assert "\n" not in str(e.value)


def test_the_file_says_what_it_was_trained_on(fitted, rows):
    about = json.loads(fitted.files()["model.json"])
    _, labels = rows()
    assert about["features"] == [f"feature_{k}" for k in range(6)]
    assert pd.Timestamp(about["trained"]["known"]) == labels.loc[labels["y"].fillna(0) != 0, "t_end"].max()
    assert about["seed"] == 42 and about["params"]["name"] == "lightgbm"


def test_learning_curve_starts_near_no_skill_and_falls_in_training(rows, params):
    features, labels = rows()
    model = Model(params(n_estimators=60), 1).fit(features, labels)
    curve = learning_curve(model, features, labels)
    assert curve["iteration"].iloc[-1] == 60
    assert curve["train"].is_monotonic_decreasing
    assert np.log(2) == pytest.approx(curve["train"].iloc[0], abs=0.05)
    assert (curve["out_of_fold"] > curve["train"]).iloc[-1]
    line = Model(params(name="logistic"), 1).fit(features, labels)
    assert learning_curve(line, features, labels).empty


def test_longest_label(rows):
    _, labels = rows(horizon=12)
    assert longest_label(labels) == 12
    assert longest_label(labels.iloc[-5:]) == 1

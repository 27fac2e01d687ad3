"Learners and calibrators against scikit-learn, and the promises about bins, zeros, missing values and bytes."

import json

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression

from cryptoalgo.core.errors import InputError
from cryptoalgo.models.learners import CALIBRATORS, LEARNERS, Isotonic, LightGBM, Logistic, Platt, rows_of


@pytest.fixture
def data(rows):
    features, labels = rows()
    known = (labels["y"].fillna(0) != 0).to_numpy()
    return rows_of(features[known]), (labels["y"][known] > 0).to_numpy(), labels["weight"][known].to_numpy()


def test_rows_are_flushed_float32_and_infinities_are_named(rows):
    features, _ = rows(50)
    features.iloc[3, 0], features.iloc[4, 0], features.iloc[5, 0] = 1e-31, -1e-35, 1e-29
    before = features.copy()
    values = rows_of(features).values
    assert values.dtype == np.float32 and values.flags.c_contiguous
    assert values[3, 0] == values[4, 0] == 0.0 != values[5, 0]
    assert features.equals(before)
    features.iloc[7, 2] = -np.inf
    with pytest.raises(InputError, match=r"feature_2 at 2024-01-01 07:00:00.*-inf"):
        rows_of(features)


@pytest.mark.parametrize("name", LEARNERS)
def test_text_is_the_whole_learner(name, data, params):
    rows, up, weight = data
    learner = LEARNERS[name](params(name=name), 5).fit(rows, up, weight)
    again = type(learner).parse(learner.text(), params(name=name), 5)
    assert np.array_equal(again.margin(rows.values), learner.margin(rows.values))
    assert again.text() == learner.text()
    assert np.array_equal(again.importance(), learner.importance())


@pytest.mark.parametrize("name", LEARNERS)
def test_an_answer_depends_on_its_row_alone(name, data, params):
    rows, up, weight = data
    learner = LEARNERS[name](params(name=name), 5).fit(rows, up, weight)
    whole = learner.margin(rows.values)
    for at in (slice(0, 1), slice(17, 40), slice(1000, 2501)):
        assert np.array_equal(learner.margin(rows.values[at]), whole[at])


def test_cut_once_is_as_good_as_cut_by_lightgbm(data, params):
    "Shared bins, subset by window: the very trees of a plain LightGBM fit on that window with those bins."
    rows, up, weight = data
    window = np.arange(500, 2000)
    shared = LightGBM(params(), 5).cut(rows, np.arange(0, 1200))
    mine = LightGBM(params(), 5).fit(shared.take(window), up[window], weight[window])
    settings_ = mine._settings()
    edges = lgb.Dataset(np.vstack([rows.matrix[:1200], np.full((1, 6), np.nan, "float32")]), feature_name=list(rows.names),
                        params=settings_)
    plain = lgb.Dataset(rows.matrix[window], up[window], weight=weight[window], reference=edges, params=settings_)
    assert mine.text() == lgb.train(settings_, plain, 30).model_to_string()


def test_bins_of_a_window_ignore_every_other_row(data, params):
    rows, up, weight = data
    window = np.arange(800, 2000)
    texts = []
    for noise in (0.0, 50.0):
        matrix = rows.matrix.copy()
        matrix[:800] += noise
        matrix[2000:] -= noise
        other = type(rows)(matrix, rows.names, rows.at)
        cut = LightGBM(params(), 5).cut(other, window)
        texts.append(LightGBM(params(), 5).fit(cut.take(window), up[window], weight[window]).text())
    assert texts[0] == texts[1]


def test_missing_is_never_zero(data, params):
    rows, up, weight = data
    never = type(rows)(np.nan_to_num(rows.matrix), rows.names, rows.at)
    learner = LightGBM(params(), 5).fit(never, up, weight)
    kinds = {kind for line in learner.text().splitlines() if line.startswith("decision_type") for kind in line[14:].split()}
    assert kinds <= {"8", "10"}  # LightGBM's bits for "NaN is missing", going right or left
    zero, missing = np.zeros((1, 6), "float32"), np.full((1, 6), np.nan, "float32")
    assert learner.margin(zero) != learner.margin(missing)


def test_stages_end_at_the_margin(data, params):
    rows, up, weight = data
    for n in (30, 47):
        learner = LightGBM(params(n_estimators=n), 5).fit(rows, up, weight)
        stages = list(learner.stages(rows.values))
        assert [k for k, _ in stages][-1] == n
        np.testing.assert_allclose(stages[-1][1], learner.margin(rows.values), atol=1e-9)
    assert list(Logistic(params(), 1).stages(rows.values)) == []


def test_a_line_finds_the_signs_and_stands_at_the_mean_when_all_is_missing(data, params):
    rows, up, weight = data
    line = Logistic(params(name="logistic"), 1).fit(rows, up, weight)
    assert line.weights_[0] > 0 > line.weights_[1]
    assert np.isfinite(line.margin(np.full((1, 6), np.nan, "float32"))).all()
    assert np.array_equal(line.margin(np.full((1, 6), 1e20, "float32")), line.margin(np.full((1, 6), 1e9, "float32")))


def test_a_feature_that_is_empty_or_constant_does_no_harm(data, params):
    rows, up, weight = data
    matrix = rows.matrix.copy()
    matrix[:, 2], matrix[:, 3] = np.nan, 1.0
    for name, kind in LEARNERS.items():
        learner = kind(params(name=name), 1).fit(type(rows)(matrix, rows.names, rows.at), up, weight)
        assert np.isfinite(learner.margin(matrix)).all(), name
        assert (learner.importance()[2:4] < 1e-9).all(), name


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(30, 400))
def test_isotonic_is_scikit_learns_within_its_bounds(seed, n):
    rng = np.random.default_rng(seed)
    margin, weight = np.round(rng.standard_normal(n), 2), rng.uniform(0.1, 1, n)
    up = rng.random(n) < expit(margin)
    mine, least = Isotonic().fit(margin, up, weight), 1 / (weight.sum() + 2)
    theirs = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(margin, up, weight)
    grid = np.linspace(-6, 6, 200)
    np.testing.assert_allclose(mine.predict(grid), theirs.predict(grid), atol=1e-12)
    assert (np.diff(mine.predict(grid)) >= 0).all()
    assert mine.predict(grid).min() > 0 and mine.predict(grid).max() < 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(60, 400))
def test_platt_is_scikit_learns(seed, n):
    rng = np.random.default_rng(seed)
    margin = 3 * rng.standard_normal(n)
    up = rng.random(n) < expit(0.5 * margin - 0.3)
    up[:2] = True, False
    mine = Platt().fit(margin, up, np.ones(n))
    slope, intercept = _sigmoid_calibration(margin, up)
    assert (mine.slope_, mine.intercept_) == pytest.approx((-slope, -intercept), abs=2e-3)


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_a_calibrator_survives_json(kind):
    rng = np.random.default_rng(2)
    margin = rng.standard_normal(500)
    fitted = CALIBRATORS[kind]().fit(margin, rng.random(500) < expit(margin), np.ones(500))
    state = json.loads(json.dumps({k: np.asarray(v).tolist() for k, v in fitted.state().items()}))
    again = CALIBRATORS[kind].restore({"kind": kind, **state})
    assert np.array_equal(again.predict(margin), fitted.predict(margin))

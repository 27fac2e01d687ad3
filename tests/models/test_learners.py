"Learners and calibrators against scikit-learn, and the promises about bins, zeros, missing values and bytes."

import json

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import _sigmoid_calibration
from sklearn import linear_model
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.isotonic import IsotonicRegression

from cryptoalgo.core.errors import InputError
from cryptoalgo.models.boosting import LightGBM, XGBoost
from cryptoalgo.models.calibration import CALIBRATORS, Isotonic, Platt
from cryptoalgo.models.histogram import MISSING, HistGradientBoosting, Trees, grown
from cryptoalgo.models.learners import Rows, one_thread, rows_of
from cryptoalgo.models.linear import Logistic, Ridge
from cryptoalgo.models.members import LEARNERS as ALL

LEARNERS = {name: kind for name, kind in ALL.items() if name != "attention"}  # it looks at many rows and has tests of its own


def same(value, n=1):
    "Rows of six features with one value throughout."
    return Rows(np.full((n, 6), value, "float32"), tuple(f"feature_{k}" for k in range(6)), np.arange(n))


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
def test_files_are_the_whole_learner(name, data, params):
    rows, up, weight = data
    learner = LEARNERS[name](params(name=name), 5).fit(rows, up, weight)
    again = type(learner).from_files(learner.files(), params(name=name), 5)
    assert np.array_equal(again.margin(rows), learner.margin(rows))
    assert again.files() == learner.files()
    assert np.array_equal(again.importance(), learner.importance())


@pytest.mark.parametrize("name", [n for n in LEARNERS if n != "logistic"])
def test_a_return_is_foretold_in_its_own_unit(name, rows, params, data):
    features, labels = rows()
    _, _, weight = data
    known = (labels["y"].fillna(0) != 0).to_numpy()
    some, y, p = rows_of(features[known]), 100 * labels["ret"][known].to_numpy(), params(name=name, task="return", n_estimators=60)
    learner = LEARNERS[name](p, 5).fit(some, y, weight)
    margin = learner.margin(some)
    assert margin.mean() == pytest.approx(np.average(y, weights=weight), abs=0.05 * y.std())
    assert np.corrcoef(margin, y)[0, 1] > 0.3 and abs(np.polyfit(margin, y, 1)[0] - 1) < 0.5
    again = LEARNERS[name].from_files(learner.files(), p, 5)
    assert np.array_equal(again.margin(some), margin) and again.files() == learner.files()
    for k, stage in learner.stages(some):
        assert stage.shape == margin.shape
    if name not in ("ridge",):
        np.testing.assert_allclose(stage, margin, atol=1e-9)


@pytest.mark.parametrize("name", LEARNERS)
def test_an_answer_depends_on_its_row_alone(name, data, params):
    rows, up, weight = data
    learner = LEARNERS[name](params(name=name), 5).fit(rows, up, weight)
    whole = learner.margin(rows)
    for at in (slice(0, 1), slice(17, 40), slice(1000, 2501)):
        assert np.array_equal(learner.margin(rows.take(np.arange(len(rows.at))[at])), whole[at])


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
    assert mine.files()["model.txt"].decode() == lgb.train(settings_, plain, 30).model_to_string()


@pytest.mark.parametrize("kind", [LightGBM, HistGradientBoosting, XGBoost])
def test_bins_of_a_window_ignore_every_other_row(kind, data, params):
    rows, up, weight = data
    window = np.arange(800, 2000)
    texts = []
    for noise in (0.0, 50.0):
        matrix = rows.matrix.copy()
        matrix[:800] += noise
        matrix[2000:] -= noise
        other = type(rows)(matrix, rows.names, rows.at)
        cut = kind(params(), 5).cut(other, window)
        texts.append(kind(params(), 5).fit(cut.take(window), up[window], weight[window]).files())
    assert texts[0] == texts[1]


def test_missing_is_never_zero(data, params):
    rows, up, weight = data
    never = type(rows)(np.nan_to_num(rows.matrix), rows.names, rows.at)
    learner = LightGBM(params(), 5).fit(never, up, weight)
    kinds = {kind for line in learner.files()["model.txt"].decode().splitlines() if line.startswith("decision_type") for kind in line[14:].split()}
    assert kinds <= {"8", "10"}  # LightGBM's bits for "NaN is missing", going right or left
    zero, missing = same(0.0), same(np.nan)
    assert learner.margin(zero) != learner.margin(missing)


def leaves_of(node, row):
    "Where LightGBM's own dump sends a row, a missing value to the child with more rows."
    def count(child):
        return child.get("internal_count", child.get("leaf_count"))
    while "leaf_value" not in node:
        v, left, right = row[node["split_feature"]], node["left_child"], node["right_child"]
        node = (left if count(left) >= count(right) else right) if np.isnan(v) else left if v <= node["threshold"] else right
    return node["leaf_value"]


@pytest.mark.parametrize("task", ["direction", "return"])
def test_where_nothing_was_missing_a_missing_value_goes_with_the_many(task, data, params):
    "The trees are LightGBM's own on bins without a place for what is missing; nothing else about them is changed."
    rows, up, weight = data
    whole, p = Rows(np.nan_to_num(rows.matrix), rows.names, rows.at), params(task=task)
    target = up if task == "direction" else rows.values[:, 0].astype("float64")
    mine = LightGBM(p, 5).fit(whole, target, weight)
    plain = lgb.train(mine._settings(), lgb.Dataset(whole.matrix, target, weight=weight, feature_name=list(rows.names), params=mine._settings()), 30)
    assert np.array_equal(mine.margin(whole), plain.predict(whole.matrix, raw_score=True))
    dump = [tree["tree_structure"] for tree in plain.dump_model()["tree_info"]]
    holes = whole.matrix[:200].copy()
    holes[np.random.default_rng(1).random(holes.shape) < 0.4] = np.nan
    said = mine.margin(Rows(holes, rows.names, np.arange(200)))
    np.testing.assert_allclose(said, [sum(leaves_of(tree, row) for tree in dump) for row in holes], atol=1e-12)
    again = LightGBM.from_files(mine.files(), p, 5)
    assert again.files() == mine.files() and np.array_equal(again.importance(), mine.importance())


def test_a_value_missing_only_after_the_bins_were_cut_is_not_taken_for_zero(data, params):
    rows, up, weight = data
    matrix, window = np.nan_to_num(rows.matrix), np.arange(500, 2500)
    matrix[1500:, 2] = np.nan
    late = Rows(matrix, rows.names, rows.at)
    cut = LightGBM(params(), 5).cut(late, np.arange(0, 1000))
    assert cut.bins["lightgbm"].complete
    mine = LightGBM(params(), 5).fit(cut.take(window), up[window], weight[window])
    assert mine.files() == LightGBM(params(), 5).fit(late.take(window), up[window], weight[window]).files()
    early = np.arange(0, 1400)
    assert LightGBM(params(), 5).fit(cut.take(early), up[early], weight[early]).booster_.num_trees() == 30


def test_weights_of_one_are_no_weights(data, params):
    rows, up, _ = data
    ones = np.ones(up.size)
    for task, target in (("direction", up), ("return", rows.values[:, 0].astype("float64"))):
        learner = LightGBM(params(task=task), 5)
        cut = learner.cut(rows, rows.at)
        window = cut.bins["lightgbm"].rows.subset(rows.at.tolist()).construct()
        window.set_label(target.astype("float32"))
        window.set_weight(ones.astype("float32"))
        theirs = lgb.train(learner._settings(), window, 30).predict(rows.values, raw_score=True)
        np.testing.assert_allclose(learner.fit(cut, target, ones).margin(rows), theirs, atol=1e-9)


def test_trees_of_one_leaf_are_told_nothing(data, params):
    rows, up, weight = data
    flat = Rows(np.zeros_like(rows.matrix), rows.names, rows.at)
    learner = LightGBM(params(), 5).fit(flat, up, weight)
    assert np.ptp(learner.margin(flat)) == 0 and LightGBM.from_files(learner.files(), params(), 5).files() == learner.files()


@pytest.mark.parametrize("kind", [LightGBM, HistGradientBoosting, XGBoost])
def test_stages_end_at_the_margin(kind, data, params):
    rows, up, weight = data
    for n in (30, 47):
        learner = kind(params(n_estimators=n), 5).fit(rows, up, weight)
        stages = list(learner.stages(rows))
        assert [k for k, _ in stages][-1] == n
        np.testing.assert_allclose(stages[-1][1], learner.margin(rows), atol=1e-9)
    assert list(Logistic(params(), 1).stages(rows)) == []


def test_a_line_finds_the_signs_and_stands_at_the_mean_when_all_is_missing(data, params):
    rows, up, weight = data
    line = Logistic(params(name="logistic"), 1).fit(rows, up, weight)
    assert line.weights_[0] > 0 > line.weights_[1]
    assert np.isfinite(line.margin(same(np.nan))).all()
    assert np.array_equal(line.margin(same(1e20)), line.margin(same(1e9)))


def test_a_feature_that_is_empty_or_constant_does_no_harm(data, params):
    rows, up, weight = data
    matrix = rows.matrix.copy()
    matrix[:, 2], matrix[:, 3] = np.nan, 1.0
    for name, kind in LEARNERS.items():
        empty = Rows(matrix, rows.names, rows.at)
        learner = kind(params(name=name), 1).fit(empty, up, weight)
        assert np.isfinite(learner.margin(empty)).all(), name
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


@pytest.mark.parametrize("task", ["direction", "return"])
@pytest.mark.parametrize("change", [{}, {"max_bin": 255, "max_depth": -1, "num_leaves": 31, "min_child_samples": 5}, {"max_bin": 3, "lambda_l2": 0}])
def test_histogram_trees_answer_as_scikit_learns_bit_for_bit(task, change, data, params):
    rows, up, weight = data
    p = params(name="hist_gradient_boosting", task=task, **change)
    target = up if task == "direction" else rows.values[:, 0].astype("float64") + up
    mine = HistGradientBoosting(p, 5).fit(rows, target, weight)
    theirs = (HistGradientBoostingClassifier if task == "direction" else HistGradientBoostingRegressor)(
        learning_rate=p.learning_rate, max_iter=p.n_estimators, max_leaf_nodes=p.num_leaves, max_depth=p.max_depth if p.max_depth > 0 else None,
        min_samples_leaf=p.min_child_samples, l2_regularization=p.lambda_l2, max_bins=p.max_bin, early_stopping=False, random_state=5)
    codes = mine._codes(rows, mine.cut(rows, rows.at).bins["hist_gradient_boosting"])
    with one_thread():
        theirs.fit(codes, target, sample_weight=weight)
    said = theirs.decision_function(codes) if task == "direction" else theirs.predict(codes)
    assert np.array_equal(mine.margin(rows), said)


def test_rows_on_a_threshold_go_where_their_bin_goes(data, params):
    "At every edge, one step below and one above: the forest over values is the forest over bins."
    rows, up, weight = data
    learner = HistGradientBoosting(params(), 5).fit(rows, up, weight)
    split = learner.trees_.feature >= 0
    values = [np.nextafter(np.float32(t), d) for t in learner.trees_.threshold[split] if np.isfinite(t) for d in (-np.inf, np.float32(t), np.inf)]
    for feature in range(6):
        matrix = np.full((len(values), 6), 0.1, "float32")
        matrix[:, feature] = values
        edge = Rows(matrix, rows.names, np.arange(len(values)))
        cut = learner.cut(rows, rows.at).bins["hist_gradient_boosting"]
        codes = np.column_stack([np.searchsorted(cut.edges[k], matrix[:, k]) for k in range(6)])
        by_code = learner.trees_._replace(threshold=np.array([
            np.searchsorted(cut.edges[f], t) if f >= 0 and np.isfinite(t) else t for f, t in zip(learner.trees_.feature, learner.trees_.threshold)], "float64"))
        assert np.array_equal(learner.margin(edge), grown(by_code, codes.astype("float32"), np.full(len(values), by_code.base), 0, by_code.root.size))


def walked(trees, row):
    "One row through a forest, in plain Python."
    total = trees.base
    for node in trees.root.tolist():
        while trees.feature[node] >= 0:
            v = float(row[trees.feature[node]])
            left = bool(trees.missing_left[node]) if v != v else v <= trees.threshold[node]
            node = int(trees.left[node] if left else trees.right[node])
        total += float(trees.value[node])
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 5))
def test_the_kernel_walks_as_plain_python_does(seed, n_trees, n_splits):
    rng = np.random.default_rng(seed)
    size = 2 * n_splits + 1
    feature, left, right = (np.full(n_trees * size, fill, "int64") for fill in (-1, 0, 0))
    for t in range(n_trees):
        leaves, used = [t * size], t * size + 1
        for _ in range(n_splits):
            node = leaves.pop(rng.integers(len(leaves)))
            feature[node], left[node], right[node] = rng.integers(3), used, used + 1
            leaves += [used, used + 1]
            used += 2
    threshold = rng.choice([-1.0, 0.0, 0.5, np.inf], feature.size)
    trees = Trees(0.25, np.arange(n_trees) * size, feature, threshold, rng.random(feature.size) < 0.5, left, right,
                  rng.standard_normal(feature.size), np.zeros(feature.size))
    values = rng.choice([-1.0, 0.0, 0.5, 2.0, np.nan], (20, 3)).astype("float32")
    assert grown(trees, values, np.full(20, trees.base), 0, n_trees).tolist() == [walked(trees, row) for row in values]
    assert (MISSING, values.shape) == (255, (20, 3))


@pytest.mark.parametrize("spoil", [lambda s: s["left"].__setitem__(0, 10**6), lambda s: s["right"].__setitem__(0, 0), lambda s: s["root"].__setitem__(0, -1),
                                   lambda s: s["feature"].__setitem__(0, 99), lambda s: s["value"].pop()])
def test_trees_that_lead_out_of_the_forest_are_refused(spoil, data, params):
    rows, up, weight = data
    state = json.loads(HistGradientBoosting(params(n_estimators=3), 5).fit(rows, up, weight).files()["trees.json"])
    spoil(state)
    with pytest.raises(ValueError, match="lead outside"):
        HistGradientBoosting.from_files({"trees.json": json.dumps(state).encode()}, params(), 5)


@pytest.mark.parametrize("direction", [True, False])
def test_ridge_is_scikit_learns(direction, data, params):
    rows, up, weight = data
    y = np.where(up, 1.0, -1.0) if direction else rows.values[:, 0].astype("float64") + up
    mine = Ridge(params(name="ridge"), 1).fit(rows, up if direction else y, weight)
    columns = mine._columns(rows.values.astype("float64"))
    theirs = linear_model.Ridge(alpha=0.1 * weight.sum(), solver="cholesky").fit(columns, y, weight)
    np.testing.assert_allclose(mine.weights_, theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(mine.margin(rows), theirs.predict(columns), atol=1e-9)
    free = Ridge(params(name="ridge", lambda_l2=0), 1).fit(rows, y, weight)
    assert np.isfinite(free.margin(rows)).all()


def test_xgboost_answers_as_its_own_matrix_does_and_knows_what_is_missing(data, params):
    import xgboost as xgb

    rows, up, weight = data
    learner = XGBoost(params(name="xgboost"), 5).fit(rows, up, weight)
    theirs = learner.booster_.predict(xgb.DMatrix(rows.values, feature_names=list(rows.names)), output_margin=True)
    assert np.array_equal(learner.margin(rows), theirs.astype("float64"))
    holes = rows.matrix.copy()
    holes[:, 0] = np.nan
    assert not np.array_equal(learner.margin(Rows(holes, rows.names, rows.at)), learner.margin(rows))
    assert b"nthread" not in learner.files()["model.xgb.json"]


@pytest.mark.parametrize("max_bin", [63, 255])
def test_quantised_gradients_are_seeded_and_rank_alike(max_bin, data, params):
    rows, up, weight = data
    exact, few = params(max_bin=max_bin), params(max_bin=max_bin, quantised=True)
    a, b = (LightGBM(few, 5).fit(rows, up, weight) for _ in range(2))
    plain = LightGBM(exact, 5).fit(rows, up, weight)
    assert a.files() == b.files() != plain.files()
    assert np.corrcoef(a.margin(rows), plain.margin(rows))[0, 1] > 0.95
    assert b"use_quantized_grad: 1" in a.files()["model.txt"] and b"use_quantized_grad: 0" in plain.files()["model.txt"]


def test_a_limit_on_threads_outlasts_the_first_who_leaves():
    from threadpoolctl import threadpool_info

    def blas():
        return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}

    before, one, two = blas(), one_thread(), one_thread()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert blas() == {1}
    two.__exit__(None, None, None)
    assert blas() == before

"Scores of a forecast of a return against scikit-learn, scipy and brute force; their intervals against simulated markets."

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from cryptoalgo.core.statistics import newey_west_t
from cryptoalgo.models.return_scores import Baseline, baseline, direction_accuracy, mae, r2, rmse, score_returns, signal_lag
from cryptoalgo.models.scores import as_plain, overlap_lag

NAMES = ("rmse", "mae", "r2", "ic_forecast", "signal_rate", "signal_r2", "direction_accuracy", "signal_ic")


def moving_sum(shocks, horizon):
    return np.convolve(shocks, np.ones(horizon), "valid") / np.sqrt(horizon)


def overlapping(seed, n=1500, horizon=24, skill=1.0):
    "y = known + unknown, both sums over `horizon` bars; the forecast is `skill` times the known part. R² is 1 − ((1 − skill)² + 1)/2."
    rng = np.random.default_rng(seed)
    known, unknown = (moving_sum(rng.standard_normal(n + horizon - 1), horizon) for _ in range(2))
    return skill * known, known + unknown


def signals(seed, n=4000, rate=0.1):
    "Labels that are 0 on most rows, as those of turning points, and a forecast of them."
    rng = np.random.default_rng(seed)
    on = rng.random(n) < rate
    y = np.where(on, rng.choice([-1.0, 1.0], n) + 0.3 * rng.standard_normal(n), 0.0)
    return 0.7 * y + 0.3 * rng.standard_normal(n), y


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(10, 400))
def test_values_agree_with_scikit_learn_and_scipy(seed, n):
    yhat, y = signals(seed, n, 0.5)
    y[:3] = 1.0, -1.0, 0.5
    found, on = score_returns(yhat, y, 4), y != 0
    assert found["rmse"].value == pytest.approx(metrics.root_mean_squared_error(y, yhat), rel=1e-12)
    assert found["mae"].value == pytest.approx(metrics.mean_absolute_error(y, yhat), rel=1e-12)
    assert found["ic_forecast"].value == pytest.approx(stats.spearmanr(yhat, y).statistic, abs=1e-12)
    assert found["signal_ic"].value == pytest.approx(stats.spearmanr(yhat[on], y[on]).statistic, abs=1e-12)
    assert found["direction_accuracy"].value == pytest.approx(metrics.accuracy_score(y[on] > 0, yhat[on] > 0), abs=1e-12)
    against_the_test_mean = score_returns(yhat, y, 4, Baseline(y.mean(), y[on].mean()))
    assert against_the_test_mean["r2"].value == pytest.approx(metrics.r2_score(y, yhat), abs=1e-9)
    assert against_the_test_mean["signal_r2"].value == pytest.approx(metrics.r2_score(y[on], yhat[on]), abs=1e-9)


def test_the_null_is_the_training_mean_and_not_that_of_the_test():
    train, y = signals(1)[1] + 0.2, signals(2)[1]
    base = baseline(train)
    assert base.mean == pytest.approx(np.mean(train)) and base.signal_mean == pytest.approx(np.mean(train[train != 0]))
    nothing = score_returns(np.full(y.size, base.mean), y, 4, base)
    assert nothing["r2"].value == 0 and nothing["rmse"].value == nothing["rmse"].null and nothing["mae"].value == nothing["mae"].null
    on = y != 0
    told = score_returns(np.where(on, base.signal_mean, base.mean), y, 4, base)
    assert told["signal_r2"].value == 0
    assert baseline([np.nan, np.nan]) == (0.0, 0.0) and baseline([0.0, 0.0, np.nan]) == (0.0, 0.0)


def test_each_row_is_held_against_the_mean_of_its_own_fold():
    yhat, y = signals(3, 2000)
    fold = np.arange(y.size) // 1000
    by_row = Baseline(np.array([0.1, -0.2])[fold], np.array([0.3, -0.4])[fold])
    found, holes = score_returns(yhat, y, 4, by_row), np.where(np.arange(y.size) % 7, yhat, np.nan)
    on = y != 0
    assert found["r2"].value == pytest.approx(1 - ((y - yhat) ** 2).sum() / ((y - by_row.mean) ** 2).sum())
    assert found["signal_r2"].value == pytest.approx(1 - ((y - yhat) ** 2)[on].sum() / ((y - by_row.signal_mean) ** 2)[on].sum())
    kept = np.isfinite(holes)
    assert score_returns(holes, y, 4, by_row) == score_returns(
        yhat[kept], y[kept], 4, Baseline(by_row.mean[kept], by_row.signal_mean[kept]))


def test_signal_scores_are_counted_over_signal_rows_alone():
    yhat, y = signals(4)
    on = y != 0
    found = score_returns(yhat, y, 4)
    assert {name: found[name].n for name in NAMES} == {
        name: int(on.sum()) if name in ("signal_r2", "direction_accuracy", "signal_ic") else y.size for name in NAMES}
    assert found["signal_rate"].value == on.mean()
    silent = score_returns(np.where(on, yhat, 0.0), y, 4)  # what is said of other rows changes no score of signal rows
    assert all(silent[name] == found[name] for name in ("signal_r2", "direction_accuracy", "signal_ic"))
    padded = score_returns(np.r_[yhat, np.zeros(9000)], np.r_[y, np.zeros(9000)], 4)
    assert padded["direction_accuracy"] == found["direction_accuracy"] and padded["signal_rate"].value < found["signal_rate"].value


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80), st.integers(1, 48))
def test_the_lag_counts_signals_that_begin_while_a_label_is_open(steps, horizon):
    rows = np.cumsum(steps)
    most = max(int(((rows > a) & (rows < a + horizon)).sum()) for a in rows)
    assert signal_lag(rows, horizon) == 2 * most <= overlap_lag(horizon)


def test_a_forecast_of_zero_is_half_right():
    y = np.array([1.0, 2.0, -1.0, -2.0, 1.0])
    assert direction_accuracy(np.array([0.5, -0.5, 0.0, -1.0, 0.0]), y).value == 0.6
    assert direction_accuracy(np.zeros(5), y).null == 0.6  # the majority's share


def test_influences_are_derivatives_of_the_score():
    "An interval from influences must match the spread of the score over resampled rows."
    yhat, y = overlapping(5, 1500, 1, 0.8)
    draws = np.random.default_rng(3).integers(0, y.size, (400, y.size))
    for measure in (rmse, mae, r2):
        spread = np.std([measure(yhat[d], y[d]).value for d in draws])
        s = measure(yhat, y)
        assert (s.high - s.low) / (2 * 1.96) == pytest.approx(spread, rel=0.15), measure.__name__


def test_t_of_an_error_is_that_of_diebold_and_mariano():
    yhat, y = overlapping(6)
    lag = overlap_lag(24)
    gain = np.abs(y - yhat) - np.abs(y)
    assert mae(yhat, y, 0.0, lag).t == pytest.approx(newey_west_t(gain, lag), rel=1e-9)


@pytest.mark.parametrize("skill", [0.0, 0.5, 1.0])
def test_intervals_cover_the_truth_over_overlapping_labels(skill):
    "95 % intervals over 100 markets of 4,000 rows: at least 85 %, where rows taken as independent stay below 60 %."
    truth = 1 - ((1 - skill) ** 2 + 1) / 2
    wants = {"r2": truth, "rmse": np.sqrt(2 * (1 - truth)), "mae": np.sqrt(2 * (1 - truth)) * np.sqrt(2 / np.pi)}
    names = [name for name in wants if skill or name != "r2"]  # a forecast of 0 is the baseline: R² is 0 exactly
    inside, narrow = [], []
    for seed in range(100):
        yhat, y = overlapping(seed, 4000, skill=skill)
        found, naive = score_returns(yhat, y, 24), score_returns(yhat, y, 1)
        inside.append([found[k].low <= wants[k] <= found[k].high for k in names])
        narrow.append([naive[k].low <= wants[k] <= naive[k].high for k in names])
    assert (np.mean(inside, axis=0) > 0.85).all() and (np.mean(narrow, axis=0) < 0.6).all()


def test_no_skill_is_rarely_called_skill():
    called = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        yhat, y = (moving_sum(rng.standard_normal(1523), 24) for _ in range(2))
        found = score_returns(0.02 * yhat, np.where(rng.random(1500) < 0.5, y, 0), 24)
        called.append([found[k].p < 0.05 for k in ("ic_forecast", "direction_accuracy", "signal_ic")])
    assert (np.mean(called, axis=0) < 0.15).all()


@pytest.mark.parametrize("yhat, y, missing", [
    (np.zeros(500), None, ("ic_forecast", "signal_ic")),
    (None, np.zeros(500), ("r2", "signal_r2", "direction_accuracy", "signal_ic", "ic_forecast")),
    (np.full(500, np.nan), None, NAMES),
    (np.empty(0), np.empty(0), NAMES),
])
def test_degenerate_cases_give_a_reason_never_a_number(yhat, y, missing):
    f, r = signals(7, 500)
    found = score_returns(f if yhat is None else yhat, r if y is None else y, 4)
    assert tuple(found) == NAMES
    for name in missing:
        assert found[name].value is None and found[name].reason, name
    assert all(s.reason for s in found.values() if s.value is None or s.low is None)
    json.dumps(as_plain(found), allow_nan=False)


def test_an_exact_forecast_has_no_error_and_says_why_it_has_no_interval():
    _, y = signals(8)
    found = score_returns(y, y, 4)
    assert found["rmse"].value == 0 == found["mae"].value and found["r2"].value == 1
    assert found["rmse"].low is None and "does not vary" in found["rmse"].reason


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 400), st.integers(1, 48), st.floats(0, 1))
def test_intervals_hold_their_value(seed, n, horizon, rate):
    yhat, y = signals(seed, n, rate)
    found = score_returns(yhat, y, horizon, baseline(y))
    assert found == score_returns(yhat, y, horizon, baseline(y))
    for name, s in found.items():
        if s.low is not None:
            assert s.low <= s.value <= s.high, name
            assert all(isinstance(v, float | int | str | None) for v in asdict(s).values())

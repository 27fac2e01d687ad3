"Scores against published numbers, scipy and scikit-learn, and their intervals against brute force."

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from cryptoalgo.models.scores import (
    as_plain, auc, block_ics, brier, brier_skill, calibration_bins, calibration_error, deciles, ece, hit_rate, ic_pearson,
    ic_spearman, icir, lift, log_loss, overlap_lag, quality, score,
)


def forecasts(n=4000, horizon=24, skill=0.5, seed=1):
    rng = np.random.default_rng(seed)
    ret = np.convolve(rng.standard_t(4, n + horizon), np.ones(horizon), "valid")[:n] * 0.005
    prob = 1 / (1 + np.exp(-(skill * ret / ret.std() + rng.standard_normal(n)) / 2))
    return prob, np.sign(ret), ret


def test_single_ic(reference, close_to):
    e = reference("ic.single")
    x, r, want = e["inputs"]["signal"], e["inputs"]["forward_return"], e["expected"]
    pearson, spearman = ic_pearson(x, r), ic_spearman(x, r)
    assert close_to([pearson.value, spearman.value], [want["pearson"], want["spearman"]], e["tolerance"])
    hits = hit_rate(0.5 + np.array(x), np.array(r) > 0)
    assert close_to(hits.value, want["hit_rate"], e["tolerance"])


def test_overlap_corrected_t(reference, close_to):
    data, e = reference("ic.single"), reference("ic.overlap_regression")
    s = ic_pearson(data["inputs"]["signal"], data["inputs"]["forward_return"], e["inputs"]["maxlags"])
    assert close_to(s.t, e["expected"]["t_hac"], e["tolerance"])
    assert s.value / s.t == pytest.approx((s.high - s.value) / stats.norm.ppf(0.975), rel=1e-9)


def test_ic_series(reference, close_to):
    e = reference("ic.series")
    want, ics = e["expected"], e["inputs"]["ic"]
    assert close_to(icir(ics).value, want["icir"], e["tolerance"])
    assert close_to([icir(ics, lag).t for lag in (0, 3, 6, None)],
                    [want["t_nw_L0"], want["t_nw_L3"], want["t_nw_L6"], want["t_nw_auto"]], e["tolerance"])


def test_calibration_numbers(reference, close_to):
    e = reference("calibration.binary")
    p, up, n = np.array(e["inputs"]["p"]), np.array(e["inputs"]["y"], bool), e["inputs"]["n_bins"]
    wide = calibration_error(calibration_bins(p, up, n))
    sure = calibration_error(calibration_bins(np.maximum(p, 1 - p), (p > 0.5) == up, n))
    mass = calibration_error(calibration_bins(p, up, n, equal_mass=True))
    got = {"brier": brier(p, up).value, "brier_skill_vs_base": brier_skill(p, up).value, "log_loss": log_loss(p, up).value,
           "auc": auc(p, up).value, "ece_positive_class": ece(p, up).value, "mce_positive_class": wide["mce"],
           "ece_confidence": sure["ece"], "ece_equal_mass": mass["ece"], "murphy_reliability": wide["reliability"],
           "murphy_resolution": wide["resolution"], "murphy_uncertainty": wide["uncertainty"]}
    assert got.keys() == e["expected"].keys()
    assert close_to(list(got.values()), [e["expected"][k] for k in got], e["tolerance"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 300), st.booleans())
def test_values_agree_with_scikit_learn_and_scipy(seed, n, ties):
    rng = np.random.default_rng(seed)
    p, up = rng.random(n), rng.random(n) < 0.4
    p, up[:2] = np.round(p, 1) if ties else p, (True, False)
    r = rng.standard_normal(n)
    assert auc(p, up).value == pytest.approx(metrics.roc_auc_score(up, p), abs=1e-12)
    assert brier(p, up).value == pytest.approx(metrics.brier_score_loss(up, p), abs=1e-12)
    assert log_loss(p, up).value == pytest.approx(metrics.log_loss(up, p, labels=[False, True]), rel=1e-9)
    assert ic_spearman(p, r).value == pytest.approx(stats.spearmanr(p, r).statistic, abs=1e-12)


def test_auc_interval_without_overlap_is_delongs():
    p, y, _ = forecasts(600)
    up = y > 0
    a, b = p[up], p[~up]
    wins = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    variance = wins.mean(1).var(ddof=1) / a.size + wins.mean(0).var(ddof=1) / b.size
    s = auc(p, up)
    assert (s.high - s.value) / stats.norm.ppf(0.975) == pytest.approx(np.sqrt(variance), rel=2e-3)


def test_hit_rate_interval_without_overlap_is_wilsons():
    p, y, _ = forecasts(600)
    s, hits = hit_rate(p, y > 0), int(((p > 0.5) == (y > 0)).sum())
    want = stats.binomtest(hits, 600).proportion_ci(method="wilson")
    assert (s.low, s.high) == pytest.approx((want.low, want.high), rel=1e-6)


def test_influences_are_derivatives_of_the_score():
    "An interval from influences must match the spread of the score over resampled rows."
    p, y, r = forecasts(1500, horizon=1)
    draws = np.random.default_rng(3).integers(0, p.size, (400, p.size))
    up = r > np.quantile(r, 0.3)  # away from ½, where the majority is not in doubt
    for measure in (lift, auc, brier, brier_skill, log_loss):
        spread = np.std([measure(p[d], up[d]).value for d in draws])
        s = measure(p, up)
        assert (s.high - s.low) / (2 * 1.96) == pytest.approx(spread, rel=0.15), measure.__name__
    spread = np.std([ic_spearman(p[d], r[d]).value for d in draws])
    s = ic_spearman(p, r)
    assert (s.high - s.low) / (2 * 1.96) == pytest.approx(spread, rel=0.15)


def test_overlap_widens_every_interval():
    p, y, r = forecasts(4000)
    for name in ("hit_rate", "brier", "log_loss"):
        wide, narrow = score(p, y, r, 24)[name], score(p, y, r, 1)[name]
        assert wide.value == narrow.value
        assert wide.high - wide.low > 0.9 * (narrow.high - narrow.low)
    slow = np.convolve(p, np.ones(48) / 48, "same")  # a forecast with memory, as ours are
    wide, narrow = score(slow, y, r, 24), score(slow, y, r, 1)
    for name in ("ic_spearman", "ic_pearson", "auc", "hit_rate", "lift"):
        assert wide[name].high - wide[name].low > 2 * (narrow[name].high - narrow[name].low), name


def test_no_skill_is_rarely_called_skill():
    "False positives at 5 % over markets with overlapping labels and forecasts with memory."
    called = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        ret = np.convolve(rng.standard_normal(1524), np.ones(24), "valid")[:1500]
        prob = 0.5 + 0.01 * np.convolve(rng.standard_normal(1547), np.ones(48), "valid")[:1500]
        found = score(prob, np.sign(ret), ret, 24)
        called.append([found[k].p < 0.05 for k in ("ic_spearman", "auc")])
    assert (np.mean(called, axis=0) < 0.15).all()
    assert (np.mean(called, axis=0) > 0.01).all()


def test_rows_without_label_or_forecast_are_not_scored():
    p, y, r = forecasts(1000)
    holes = np.arange(0, 1000, 7)
    q, y2, r2 = p.copy(), y.copy(), r.copy()
    q[holes], y2[holes + 1], r2[holes + 1] = np.nan, np.nan, np.nan
    keep = np.ones(1000, bool)
    keep[holes] = keep[holes + 1] = False
    got, want = score(q, y2, r2, 4), score(p[keep], y[keep], r[keep], 4)
    assert {k: v for k, v in got.items() if k != "quality"} == {k: v for k, v in want.items() if k != "quality"}
    assert got["quality"].value < want["quality"].value  # completeness


def test_a_vertical_label_has_a_return_but_no_direction():
    p, y, r = forecasts(1000)
    y[::5] = 0
    found = score(p, y, r, 4)
    assert found["ic_spearman"].n == 1000
    assert found["auc"].n == 800 == found["hit_rate"].n


@pytest.mark.parametrize("prob, y, missing", [
    (np.full(500, 0.6), None, ("ic_spearman", "ic_pearson", "icir", "auc", "quality")),
    (None, np.ones(500), ("auc", "brier_skill")),
    (np.full(500, np.nan), None, ("ic_spearman", "auc", "brier", "hit_rate", "lift", "log_loss", "ece", "quality")),
])
def test_degenerate_cases_give_a_reason_never_a_number(prob, y, missing):
    p, sign, r = forecasts(500)
    found = score(p if prob is None else prob, sign if y is None else y, r, 4)
    for name in missing:
        assert found[name].value is None and found[name].reason, name
    assert all(s.reason for s in found.values() if s.value is None or s.low is None)
    json.dumps(as_plain(found), allow_nan=False)


def test_few_rows_have_values_but_no_interval():
    p, y, r = forecasts(60, horizon=1)
    s = score(p, y, r, 24)["auc"]
    assert s.value is not None and s.low is None and "60 rows" in s.reason


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 400).filter(lambda n: n != 1), st.integers(1, 48))
def test_intervals_hold_their_value(seed, n, horizon):
    p, y, r = forecasts(n, horizon, seed=seed) if n else (np.empty(0),) * 3
    found = score(p, y, r, horizon)
    assert found == score(p, y, r, horizon)
    for name, s in found.items():
        if s.low is not None:
            assert s.low <= s.value <= s.high, name
            assert all(isinstance(v, float | int | str | None) for v in asdict(s).values())


def test_a_calibrated_forecaster_has_a_small_error_and_a_liar_a_large_one():
    rng = np.random.default_rng(5)
    p = rng.random(8000)
    up = rng.random(8000) < p
    honest, liar = ece(p, up), ece(np.clip(p * 1.5 - 0.25, 0, 1), up)
    assert honest.high < 0.03 < liar.low
    assert honest.low <= honest.value


def test_quality_points():
    p, y, r = forecasts(6000, horizon=1, skill=3)
    found = score(p, y, r, 1)
    ic, versus = found["ic_spearman"], found["lift"]
    assert quality(ic, versus, 1.0, 10_000).value == pytest.approx(100, abs=1e-6)
    assert quality(ic, versus, 0.0, 0).value == pytest.approx(90, abs=1e-6)
    flat = score(*forecasts(6000, 1, 0.0, seed=9), 1)["quality"]
    assert flat.value < 30


def test_stretches_and_lags():
    p, _, r = forecasts(3000)
    assert block_ics(p, r, 24).size == 3000 // 720
    assert (overlap_lag(24), overlap_lag(1), overlap_lag(0)) == (46, 0, 0)


def test_deciles_keep_ties_together_and_count_every_row():
    p, y, r = forecasts(1000)
    assert deciles(p, y, r)["n"].tolist() == [100] * 10
    table = deciles(np.round(p, 1), y, r)
    assert table["n"].sum() == 1000
    assert table["prob"].is_monotonic_increasing
    assert deciles(p, y, r)["ret_mean"].iloc[[0, -1]].is_monotonic_increasing

"""Reference numbers by name, and what must hold for any numbers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cryptoalgo.core import statistics as s
from cryptoalgo.core.errors import InputError

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
quick = settings(max_examples=200, deadline=None)


def moments_of(inputs: dict, n: float = 2) -> s.Moments:
    return s.Moments(inputs.get("n", n), inputs["sr"], inputs["skew"], inputs["kurtosis_nonexcess"])


# ---- reference numbers ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["psr.moments.b0", "psr.moments.b0.1", "psr.moments.normal"])
def test_psr(reference, close_to, name):
    e = reference(name)
    assert close_to(s.psr(moments_of(e["inputs"]), e["inputs"]["benchmark"]), e["expected"], e["tolerance"])


@pytest.mark.parametrize("name", ["psr_null_variance.moments.b0", "psr_null_variance.moments.b0.1"])
def test_psr_at_null(reference, close_to, name):
    e = reference(name)
    assert close_to(s.psr_at_null(moments_of(e["inputs"]), e["inputs"]["benchmark"]), e["expected"], e["tolerance"])


def test_psr_is_ours_and_the_other_moment_estimators_differ(reference, close_to):
    e = reference("psr.quantstats_variant")
    series = pd.Series(e["inputs"]["returns"])
    biased = s.moments(series)
    corrected = biased._replace(skew=series.skew(), kurtosis=series.kurt() + 3)
    assert close_to(s.psr(corrected), e["expected"], e["tolerance"])
    assert not close_to(s.psr(biased), e["expected"], e["tolerance"])


def test_sharpe_std_error(reference, close_to):
    e = reference("sharpe_std_error.moments")
    m = moments_of(e["inputs"])
    found = {"n_minus_1": s.sharpe_std_error(m), "n": s.sharpe_std_error(m._replace(n=m.n + 1))}
    assert all(close_to(found[k], v, e["tolerance"]) for k, v in e["expected"].items())


@pytest.mark.parametrize("name", ["daily", "weekly", "monthly", "monthly_nonnormal"])
def test_min_track_record(reference, close_to, name):
    e = reference(f"mintrl.{name}")
    i = e["inputs"]
    n = s.min_track_record(moments_of(i), i["benchmark"], i["alpha"])
    assert close_to(n, e["expected"]["observations"], e["tolerance"])
    assert close_to(n / i["periods_per_year"], e["expected"]["years"], e["tolerance"])


def test_min_track_record_at_null(reference, close_to):
    e = reference("mintrl_null_variance")
    i = e["inputs"]
    found = s.min_track_record_at_null(moments_of(i), i["benchmark"], i["alpha"])
    assert close_to(found, e["expected"], e["tolerance"])


@pytest.mark.parametrize("n", [2, 10, 45, 100, 1000])
def test_expected_max_sharpe(reference, close_to, n):
    e = reference(f"expected_max_sharpe.N{n}")
    found = s.expected_max_sharpe(e["inputs"]["n_trials"], e["inputs"]["trial_sr_std"])
    assert close_to(found, e["expected"]["approximation"], e["tolerance"])
    assert abs(found - e["expected"]["exact_order_statistic"]) < 0.05  # an approximation, and how good it is


@pytest.mark.parametrize("name", ["paper_N100", "paper_N46", "paper_normal_N88"])
def test_dsr_of_the_paper_is_per_period(reference, close_to, name):
    e = reference(f"dsr.{name}")
    i = e["inputs"]
    year = i["periods_per_year"]
    hurdle = s.expected_max_sharpe(i["n_trials"], np.sqrt(i["trial_sr_var_annual"] / year))
    m = s.Moments(i["n_obs"], i["sr_annual"] / np.sqrt(year), i["skew"], i["kurtosis_nonexcess"])
    found = {"sr0_per_period": hurdle, "sr0_annual": hurdle * np.sqrt(year), "dsr": s.psr(m, hurdle)}
    assert all(close_to(found[k], v, e["tolerance"]) for k, v in e["expected"].items())


def test_dsr_from_returns(reference, close_to):
    e = reference("dsr.from_returns")
    m = s.moments(e["inputs"]["returns"])
    trials = e["inputs"]["trial_sharpes"]
    found = {
        "sr": m.sharpe, "skew": m.skew, "kurtosis_nonexcess": m.kurtosis, "psr0": s.psr(m),
        "sr0": s.luck_hurdle(trials, len(trials)), "dsr": s.dsr(m, trials, len(trials)),
    }  # fmt: skip
    assert all(close_to(found[k], v, e["tolerance"]) for k, v in e["expected"].items())


@pytest.mark.parametrize("n", [10, 45, 100])
def test_min_backtest_length(reference, close_to, n):
    e = reference(f"min_backtest_length.N{n}")
    found = s.min_backtest_length(e["inputs"]["n_trials"], e["inputs"]["target_expected_max_sr_annual"])
    assert close_to(found.years, e["expected"]["years"], e["tolerance"])
    assert close_to(found.upper_bound, e["expected"]["upper_bound_years"], e["tolerance"])


def test_effective_trials(reference, close_to):
    e = reference("effective_trials.block_correlation")
    i, sizes = e["inputs"], e["inputs"]["block_sizes"]
    block = np.repeat(np.arange(len(sizes)), sizes)
    rho = np.where(block[:, None] == block, np.take(i["within_rho"], block)[:, None], i["between_rho"])
    mean = rho[np.triu_indices(len(block), 1)].mean()
    assert close_to(mean, e["expected"]["mean_offdiag"], e["tolerance"])
    assert close_to(s.effective_trials(mean, len(block)), e["expected"]["n_hat_avg_corr"], e["tolerance"])


def test_newey_west(reference, close_to):
    e = reference("ic.series")
    ic, want = e["inputs"]["ic"], e["expected"]
    assert s.newey_west_lag(len(ic)) == want["auto_lag_nw1994_rule"]
    for lags, key in [(0, "t_nw_L0"), (3, "t_nw_L3"), (6, "t_nw_L6"), (None, "t_nw_auto")]:
        assert close_to(s.newey_west_t(ic, lags), want[key], e["tolerance"])
    assert close_to(s.sharpe(ic), want["icir"], e["tolerance"])


def test_sharpe_and_drawdown_of_a_small_series(reference, close_to):
    e = reference("performance.small")
    r, year = e["inputs"]["returns"], e["inputs"]["periods_per_year"]
    assert close_to(s.max_drawdown(r), e["expected"]["max_drawdown"], e["tolerance"])
    assert close_to(s.sharpe(r) * np.sqrt(year), e["expected"]["sharpe"], e["tolerance"])


def test_psi_from_shares(reference, close_to):
    e = reference("drift.psi_from_fractions")
    i, want = e["inputs"], e["expected"]
    assert close_to(s.psi(i["expected"], i["actual"]), want["psi"], e["tolerance"])
    found = s.psi_critical(i["n"], i["m"], len(i["expected"]))
    assert close_to(found, want["chi2_critical_psi_95"], e["tolerance"])


def test_ks_and_psi_of_samples(reference, close_to):
    e = reference("drift.ks_and_psi_samples")
    old, new, want = e["inputs"]["reference"], e["inputs"]["current"], e["expected"]
    shares = s.bin_shares(old, new)
    assert close_to(shares[0], want["ref_fractions"], e["tolerance"])
    assert close_to(shares[1], want["cur_fractions"], e["tolerance"])
    assert close_to(s.psi(*shares), want["psi"], e["tolerance"])
    assert close_to(s.ks(old, new).statistic, want["ks"], e["tolerance"])
    assert close_to(s.ks(old, new, "exact").p_value, want["ks_p_exact"], e["tolerance"])
    assert close_to(s.ks(old, new, "asymp").p_value, want["ks_p_asymp"], e["tolerance"])


# ---- properties -----------------------------------------------------------------------------------------------------
ratios = st.floats(-0.5, 0.5)
shapes = st.tuples(st.floats(-2, 2), st.floats(0.01, 10)).map(lambda t: (t[0], t[0] ** 2 + 1 + t[1]))  # always possible


@quick
@given(ratios, shapes, st.integers(3, 10_000), ratios, ratios)
def test_psr_falls_with_the_benchmark(sr, shape, n, one, other):
    m = s.Moments(n, sr, *shape)
    low, high = sorted((one, other))
    assert 0 <= s.psr(m, high) <= s.psr(m, low) <= 1


@quick
@given(ratios, shapes, st.integers(3, 5_000), st.integers(3, 5_000))
def test_psr_grows_surer_with_length(sr, shape, one, other):
    short, long = (s.psr(s.Moments(n, sr, *shape)) for n in sorted((one, other)))
    assert (long >= short) if sr > 0 else (long <= short)


@quick
@given(st.floats(0.01, 0.5), shapes, shapes, st.integers(3, 5_000))
def test_fat_tails_and_left_skew_make_a_good_ratio_worth_less(sr, shape, other, n):
    skew, kurtosis = shape
    milder = s.Moments(n, sr, abs(skew), kurtosis)
    harsher = s.Moments(n, sr, -abs(skew), kurtosis + other[1])
    assert s.psr(harsher) <= s.psr(milder)


@quick
@given(st.floats(0.01, 0.5), shapes, st.floats(0.001, 0.4))
def test_at_the_minimum_track_record_psr_is_exactly_convinced(sr, shape, alpha):
    m = s.Moments(10, sr, *shape)
    n, n_null = s.min_track_record(m, 0.0, alpha), s.min_track_record_at_null(m, 0.0, alpha)
    assume(min(n, n_null) >= 2)
    assert s.psr(m._replace(n=n)) == pytest.approx(1 - alpha, abs=1e-9)
    assert s.psr_at_null(m._replace(n=n_null)) == pytest.approx(1 - alpha, abs=1e-9)
    assert s.min_track_record(m, sr) == s.min_track_record_at_null(m, sr) == np.inf


@quick
@given(st.floats(-0.1, 0.3), st.lists(st.floats(-0.2, 0.2), max_size=20), st.integers(0, 1000), st.integers(1, 500))
def test_every_further_trial_deflates(sr, trials, more, yet_more):
    m = s.Moments(500, sr)
    n = max(len(trials) + more, 1)
    now, later = s.dsr(m, trials, n), s.dsr(m, trials, n + yet_more)
    assert later <= now <= s.psr(m)
    if len(trials) < 2:
        assert now == later == s.psr(m)


@quick
@given(st.integers(0, 500), st.integers(1, 500), st.floats(0.5, 0.999))
def test_wilson_solves_the_score_equation(k, extra, confidence):
    n, p = k + extra, k / (k + extra)
    from scipy.special import ndtri

    z = ndtri(0.5 + confidence / 2)
    low, high = s.wilson(k, n, confidence)
    assert 0 <= low <= p <= high <= 1
    for end in (low, high):
        assert abs(abs(p - end) - z * np.sqrt(end * (1 - end) / n)) < 1e-9 or end in (0.0, 1.0)


def test_mean_correlation_is_that_of_pandas_with_holes():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 9)) * 10.0 ** rng.integers(-8, 3, 9) + rng.standard_normal((60, 1))
    for column in range(8):  # each series lives on its own stretch of days, the last two barely meet
        x[: 5 * column, column] = np.nan
    x[3:, 8] = np.nan
    table = pd.DataFrame(x).corr(min_periods=3).to_numpy()
    assert s.mean_correlation(x) == pytest.approx(np.nanmean(table[np.triu_indices(9, 1)]), abs=1e-9)


def test_mean_correlation_of_nothing_to_compare():
    flat = np.column_stack([np.zeros(50), np.random.default_rng(1).standard_normal(50)])
    for x in (flat, flat[:, 1:], flat[:2], np.empty((0, 3))):
        assert np.isnan(s.mean_correlation(x))


@quick
@given(st.lists(st.floats(-1.5, 2), max_size=40))
def test_drawdown_is_the_worst_pair_of_days(r):
    equity = [1.0]
    for x in r:
        equity.append(equity[-1] * max(1 + x, 0))
    worst = min((equity[j] / equity[i] - 1 for i in range(len(equity)) for j in range(i, len(equity)) if equity[i]), default=0)
    assert s.max_drawdown(r) == pytest.approx(worst, abs=1e-12)


def test_psi_is_symmetric_positive_and_survives_an_empty_bin():
    a, b = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5])
    assert s.psi(a, b) == pytest.approx(s.psi(b, a)) and s.psi(a, b) > 0 and s.psi(a, a) == 0
    discrete = s.bin_shares([0, 0, 0, 0, 1], [1, 1, 2])  # equal quantiles: bins merge, shares still add up
    assert [x.sum() for x in discrete] == pytest.approx([1, 1])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: s.sharpe([0.1, np.nan]), "value number 1 is nan"),
        (lambda: s.sharpe(np.zeros((2, 2))), "one dimension"),
        (lambda: s.sharpe_std_error(s.Moments(100, 2.0, 3.0, 1.0)), "excess kurtosis"),
        (lambda: s.psr(s.Moments(1, 0.1)), "n at least 2"),
        (lambda: s.expected_max_sharpe(0), "at least 1"),
        (lambda: s.luck_hurdle([0.1, 0.2, 0.3], 2), "count every trial"),
        (lambda: s.min_backtest_length(10, 0.0), "must be positive"),
        (lambda: s.wilson(5, 4), "5 of 4"),
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(InputError, match=words) as e:
        call()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("r", [[], [0.1], [0.01] * 30, [0.0] * 30])
def test_what_cannot_be_measured_is_nan(r):
    m = s.moments(r)
    assert np.isnan([s.sharpe(r), s.psr(m), s.psr_at_null(m), s.min_track_record(m), s.dsr(m, [], 1)]).all()
    assert np.isnan(s.newey_west_t(r))

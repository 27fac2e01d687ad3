"""The objective against a plain restatement, term by term, and what it must never do."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.sections import ObjectiveParams
from cryptoalgo.research.objective import Fold, sharpe_so_far, worth

P = ObjectiveParams(trades_per_week=2.0)


def fold(seed: int, edge: float, n: int, days: int = 90, cost: float = 0.0014) -> Fold:
    rng = np.random.default_rng(seed)
    gross = rng.normal(edge, 0.012, n)
    net, stressed = gross - cost, gross - 1.7 * cost
    day = np.sort(rng.choice(days, n))
    daily, worse = np.zeros(days), np.zeros(days)
    np.add.at(daily, day, 0.5 * net)
    np.add.at(worse, day, 0.5 * stressed)
    return Fold(daily, worse, net, gross, stressed, np.full(n, cost), gross < -0.01)


def annual(daily) -> float:
    x = [float(v) for v in daily]
    sd = statistics.stdev(x)
    return statistics.fmean(x) / sd * math.sqrt(365) if sd > 0 else 0.0


def error(daily) -> float:
    s = annual(daily) / math.sqrt(365)
    return math.sqrt(365 * (1 + s * s / 2) / len(daily))


def plain_terms(folds: list[Fold]) -> dict[str, float]:
    "The adjustments of an accepted trial, written down once more in plain Python."
    net = [v for f in folds for v in f.net.tolist()]
    gross = sum(v for f in folds for v in f.gross.tolist())
    cost = sum(v for f in folds for v in f.cost.tolist())
    stops = [v for f in folds for v in f.stopped.tolist()]
    days = [v for f in folds for v in f.daily.tolist()]
    ratios, errors = [annual(f.daily) for f in folds], [error(f.daily) for f in folds]
    between = math.sqrt(max(0.0, statistics.variance(ratios) - statistics.fmean(e * e for e in errors)))
    path, peak, fall = 0.0, 0.0, 0.0
    for d in days:
        path += d
        peak = max(peak, path)
        fall = max(fall, peak - path)
    wins, losses = sum(v for v in net if v > 0), -sum(v for v in net if v < 0)
    thin = sum(len(f.net) < 2 * P.min_trades_fold for f in folds) / len(folds)
    clip = lambda v: min(1.0, max(0.0, v))  # noqa: E731
    target = P.trades_per_week * len(days) / 7
    return {
        "sharpe": statistics.fmean(0.6 * annual(f.daily) + 0.4 * annual(f.stressed_daily) for f in folds),
        "steady_folds": 0.15 if between < 0.3 else -0.25 if between > 0.8 else 0.0,
        "no_losing_fold": 0.1 if min(ratios) > 0 else 0.0,
        "profit_factor": 0.2 * (clip((wins / losses - 1.2) / 0.8) if losses else 1.0),
        "drawdown": -2 * max(0.0, fall - 0.25),
        "thin_folds": -(0.2 + 0.3 * thin) if thin else 0.0,
        "too_good_too_few": -0.3 if len(net) < 40 and sum(v > 0 for v in net) / len(net) > 0.75 else 0.0,
        "fee_edge": -0.35 * clip((cost / gross - 0.35) / 0.35),
        "stop_share": -0.5 * clip((sum(stops) / len(stops) - 0.7) / 0.3),
        "trade_frequency": -0.6 * (1 - len(net) / target) if len(net) < target else 0.0,
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0.001, 0.012), st.integers(6, 60)), min_size=2, max_size=5))
def test_an_accepted_trial_is_the_sum_of_its_terms_and_each_term_is_as_stated(rows):
    folds = [fold(*row) for row in rows]
    found = worth(folds, P)
    assert found.value == pytest.approx(sum(found.terms.values()) if not found.rejected else found.value)
    if found.rejected:
        assert -14 <= found.value < -6
        return
    for name, amount in plain_terms(folds).items():
        assert found.terms[name] == pytest.approx(amount, abs=1e-9), name


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-0.01, 0.012), st.integers(0, 60)), min_size=2, max_size=4), st.floats(0.0005, 0.003))
def test_paying_more_never_helps(rows, more):
    "The same trades at higher costs are worth no more, rejected or not."
    cheap, dear = [fold(*row) for row in rows], [fold(*row, cost=0.0014 + more) for row in rows]
    assert worth(dear, P).value <= worth(cheap, P).value + 0.41  # 0.15 + 0.25: folds may happen to become more alike


@pytest.mark.parametrize("rule, folds", [
    ("folds_traded", [fold(1, 0.01, 0), fold(2, 0.01, 0), fold(3, 0.01, 40)]),
    ("trades_in_a_fold", [fold(1, 0.01, 3), fold(2, 0.01, 40)]),
    ("trades", [fold(1, 0.01, 6), fold(2, 0.01, 6)]),
    ("expectancy", [fold(1, 0.0, 40), fold(2, 0.0, 40)]),
    ("expectancy_before_costs", [fold(1, -0.01, 40), fold(2, -0.01, 40)]),
    ("expectancy_doubled_fees", [fold(1, 0.002, 60, cost=0.0016), fold(7, 0.002, 60, cost=0.0016)]),
    ("worst_fold", [fold(1, 0.012, 40), fold(2, -0.012, 40)]),
    ("win_rate", [fold(1, -0.012, 40), fold(2, 0.012, 40)]),
    ("psr", [fold(1, -0.01, 40), fold(2, -0.01, 40)]),
])
def test_each_rule_rejects_what_it_is_there_for(rule, folds):
    found = worth(folds, P)
    assert rule in found.rejected and 0 < found.terms[rule] <= 1 and found.value < -6


def test_the_coins_floor_holds_where_it_is_the_higher():
    folds = [fold(k, 0.012, 20) for k in range(2)]
    assert "trades" not in worth(folds, P).rejected
    assert "trades" in worth(folds, P.model_copy(update={"coin_trades": 50})).rejected


def test_what_a_pruner_sees_is_the_mean_so_far():
    folds = [fold(k, 0.01, 30) for k in range(3)]
    assert sharpe_so_far(folds[:1], P) == pytest.approx(0.6 * annual(folds[0].daily) + 0.4 * annual(folds[0].stressed_daily))
    assert sharpe_so_far(folds, P) == pytest.approx(worth(folds, P).terms["sharpe"])

"""Metrics against the reference numbers, and our books against vectorbt's."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from cryptoalgo.core.errors import InputError
from cryptoalgo.trading.engine import backtest, read_config
from cryptoalgo.trading.performance import metrics, return_statistics, to_vectorbt

from .markets import cases, frame, run_engine


@pytest.mark.reference
def test_performance_small_is_reproduced(reference, close_to):
    entry = reference("performance.small")
    inputs, expected = entry["inputs"], dict(entry["expected"])
    ours = return_statistics(inputs["returns"], inputs["periods_per_year"])
    n = len(inputs["returns"])
    ours |= {"ulcer_population": ours["ulcer"], "ulcer_quantstats_n_minus_1": ours["ulcer"] * np.sqrt(n / (n - 1))}
    for name, value in expected.items():
        assert close_to(ours[name], value, entry["tolerance"]), name


def test_a_series_without_variance_has_no_sharpe():
    stats = return_statistics([0.0, 0.0, 0.0], 365)
    assert np.isnan(stats["sharpe"]) and np.isnan(stats["win_rate_excl_zero"]) and stats["total_return"] == 0


@pytest.mark.parametrize("returns", [[], [0.1, np.nan]])
def test_a_series_with_holes_is_refused(returns):
    with pytest.raises(InputError):
        return_statistics(returns, 365)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases())
def test_vectorbt_books_the_same_profit_trade_by_trade(case):
    result = run_engine(*case)
    trades = result.trades
    if not len(trades):
        return
    books = to_vectorbt(trades, {s: frame(b) for s, b in case[0].items()}).trades.records_readable
    ours = trades.sort_values(["symbol", "entry_time"], ignore_index=True)
    theirs = books.sort_values(["Column", "Entry Timestamp"], ignore_index=True)
    assert ours["symbol"].tolist() == theirs["Column"].tolist()
    assert np.allclose(theirs["PnL"], ours["net"], rtol=1e-9, atol=1e-9)
    assert np.allclose(theirs["Size"], ours["quantity"], rtol=1e-12)
    assert theirs["Direction"].map({"Long": 1, "Short": -1}).tolist() == ours["side"].tolist()
    assert set(theirs["Status"]) == {"Closed"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases())
def test_metrics_are_measured_or_none(case):
    result = run_engine(*case)
    m = metrics(result)
    assert all(v is None or isinstance(v, (str, bool)) or np.isfinite(v) for v in m.values())
    assert m["n_trades"] == len(result.trades) and 0 <= m["exposure"] <= 1 and m["max_drawdown"] <= 0
    if len(result.trades):
        hours = (result.trades["exit_time"] - result.trades["entry_time"]) / pd.Timedelta(hours=1)
        assert m["mean_holding_h"] == pytest.approx(hours.mean())
    else:
        assert m["win_rate"] is None and m["stop_loss_share"] is None and m["sharpe"] is None


def test_a_ruined_account_has_no_ratios():
    bars = pd.DataFrame({p: [100.0, 100.0, 10.0, 10.0] for p in ("open", "high", "low", "close")},
                        index=pd.date_range("2024-01-01", periods=4, freq="1d", tz="UTC", unit="ms", name="event_time"))
    config = read_config({"fee_bps": 0, "slippage_bps": 0, "size": {"contracts": 2}, "initial_equity_usd": 100.0})
    m = metrics(backtest({"X": bars}, pd.DataFrame({"event_time": bars.index[:1], "symbol": "X", "side": 1}), None, config))
    assert m["ruined"] and m["sharpe"] is None and m["net_return"] == -1.8

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


def doubling(days, size):
    "Hourly bars that come to double their price, bought at the second and held to the end at no cost."
    close = 100 * 2 ** np.linspace(0, 1, 24 * days)
    close[24 * days // 2:] -= 60 * np.sin(np.linspace(0, np.pi, 24 * days - 24 * days // 2))  # with a fall on the way
    bars = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close), index=pd.date_range("2024-01-01", periods=24 * days, freq="h", tz="UTC"))
    decisions = pd.DataFrame({"event_time": bars.index[:1], "symbol": "X", "side": 1, "vol": 0.01})
    result = backtest({"X": bars}, decisions, None, read_config({"fee_bps": 0, "slippage_bps": 0, "initial_equity_usd": 1000.0, "size": size}))
    return bars, result


def test_growth_and_falls_are_those_of_the_account_whether_it_compounds_or_not():
    for size in ({"notional_usd": 1000}, {"profile": True, "position_size": 1.0, "leverage": 1.0, "vol_target": 0.01}):
        result = doubling(200, size)[1]
        m, equity = metrics(result), np.append(1000.0, result.equity["equity"].to_numpy())
        assert m["ann_return_geometric"] == pytest.approx((equity[-1] / 1000) ** (365 / 200) - 1, rel=1e-9)
        assert m["max_drawdown"] == pytest.approx((equity / np.maximum.accumulate(equity) - 1).min()) and m["max_drawdown"] < -0.05
        assert m["calmar"] == pytest.approx(m["ann_return_geometric"] / -m["max_drawdown"])
        days = np.append(1000.0, result.equity["equity"].groupby(result.equity.index.floor("D")).last().to_numpy())
        falls = (days / np.maximum.accumulate(days) - 1)[1:]
        assert m["ulcer"] == pytest.approx(np.sqrt(np.mean(falls**2)))


@pytest.mark.parametrize("notional", [10, 1000, 1e6])
def test_vectorbts_statistics_do_not_drown_in_cash(notional):
    bars, result = doubling(30, {"notional_usd": notional})
    book = to_vectorbt(result.trades, {"X": bars})
    assert book.sharpe_ratio() == pytest.approx(to_vectorbt(doubling(30, {"notional_usd": 1000})[1].trades, {"X": bars}).sharpe_ratio(), rel=0.02)
    assert book.total_return() * book.init_cash == pytest.approx(result.totals["net"], rel=1e-9) and book.max_drawdown() < -0.01


def test_a_ruined_account_has_no_ratios():
    bars = pd.DataFrame({p: [100.0, 100.0, 10.0, 10.0] for p in ("open", "high", "low", "close")},
                        index=pd.date_range("2024-01-01", periods=4, freq="1d", tz="UTC", unit="ms", name="event_time"))
    config = read_config({"fee_bps": 0, "slippage_bps": 0, "size": {"contracts": 2}, "initial_equity_usd": 100.0})
    m = metrics(backtest({"X": bars}, pd.DataFrame({"event_time": bars.index[:1], "symbol": "X", "side": 1}), None, config))
    assert m["ruined"] and m["sharpe"] is None and m["net_return"] == -1.8

"""The scalars of one coin against the account's own trades, sum by sum, on random markets and rules."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalgo.core.statistics import sharpe
from cryptoalgo.trading.config import EngineConfig
from cryptoalgo.trading.engine import _table, daily_returns, orders, simulate
from cryptoalgo.trading.market import prepare
from cryptoalgo.trading.scores import score

from .markets import cases, decisions_frame, events_frame, frame

relaxed = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def one_coin(case):
    bars, events, decisions, configs = case
    (symbol,) = bars
    prepared = prepare({symbol: frame(bars[symbol])}, {s: events_frame(e) for s, e in events.items()})
    return prepared, decisions_frame(decisions), EngineConfig.model_validate(configs[symbol])


def scalars_of(result) -> dict[str, float]:
    "What `SCORE` holds, from the frames of a backtest."
    t, daily = result.trades, daily_returns(result).to_numpy()
    step = result.equity.index[1] - result.equity.index[0]
    last_of_day = result.equity["equity"].groupby(result.equity.index.floor("D")).last()
    peak = np.maximum.accumulate(np.append(result.totals["initial_equity_usd"], last_of_day))[1:]
    sums = {part: sum(t[part].tolist()) for part in ("gross", "slippage", "fees", "funding", "net")}
    return {
        "n_trades": len(t), "n_wins": (t["net"] > 0).sum(), "n_stops": t["exit_reason"].isin(["stop_loss", "stop_loss_gap"]).sum(),
        "n_liquidations": (t["exit_reason"] == "liquidation").sum(), "n_both_touched": t["both_touched"].sum(),
        "held_bars": ((t["exit_time"] - t["entry_time"]) / step).sum(), **sums,
        "gains": sum(x for x in t["net"] if x > 0), "losses": sum(x for x in t["net"] if x <= 0),
        "return_sum": sum((t["net"] / (t["quantity"] * t["entry_price"])).tolist()),
        "max_drawdown": result.totals["max_drawdown"], "max_drawdown_daily": min(0.0, (last_of_day / peak - 1).min()),
        "sharpe_daily": sharpe(daily) if len(daily) > 1 and len(t) else np.nan,
    }


SUMS = ["gross", "slippage", "fees", "funding", "net", "gains", "losses", "max_drawdown"]


@relaxed
@given(case=cases(coins=st.just(1)))
def test_the_fold_over_one_coin_is_the_step_over_n(case):
    prepared, table, config = one_coin(case)
    ours = score(prepared, orders(_table(table, prepared), prepared, [config]), config)
    wanted = scalars_of(simulate(prepared, table, config))
    for name, value in wanted.items():
        if name.startswith(("n_", "held")) or name in SUMS:  # added in the same order: equal to the last bit
            assert ours[name] == value, name
        else:
            assert np.isclose(ours[name], value, rtol=1e-7, atol=1e-12, equal_nan=True), name
    assert set(ours) == set(wanted)

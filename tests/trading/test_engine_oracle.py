"""The kernel against a plain-Python restatement of the conventions, trade by trade, on random markets of one to five coins."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import to_ms
from cryptoalgo.trading import kernel as k
from cryptoalgo.trading.config import rules_of
from cryptoalgo.trading.engine import EngineConfig, _table
from cryptoalgo.trading.market import prepare
from cryptoalgo.trading.transition import EXIT_REASONS, OUTCOMES, POSITION, TRADE, UNLIMITED

from .markets import cases, decisions_frame, events_frame, frame, run_engine
from .oracle import run

EXACT = ["symbol", "side", "exit_reason", "both_touched"]
TIMES = ["decision_time", "entry_time", "exit_time"]
NUMBERS = ["entry_ref", "entry_price", "exit_ref", "exit_price", "quantity", "sigma", "gross", "slippage", "fees", "funding", "net"]
relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def same_trades(ours, theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for column in EXACT:
        assert ours[column].tolist() == [t[column] for t in theirs], column
    for column in TIMES:
        assert to_ms(ours[column]).tolist() == [t[column] for t in theirs], column
    for column in NUMBERS:
        wanted = np.array([np.nan if t[column] is None else t[column] for t in theirs], float)
        scale = np.abs(wanted) + (1.0 if column in ("gross", "slippage", "fees", "funding", "net") else 0.0)
        gap = np.abs(ours[column].to_numpy() - wanted)
        assert np.all((gap <= 1e-11 * scale) | (np.isnan(wanted) & np.isnan(ours[column].to_numpy()))), column


@relaxed
@given(case=cases())
def test_every_trade_equals_the_oracle(case):
    result = run_engine(*case)
    trades, rejected, equity = run(*case)
    same_trades(result.trades, trades)
    assert result.rejected == rejected
    ours = dict(zip(to_ms(result.equity.index).tolist(), result.equity["equity"]))
    assert all(abs(ours[t] - e) <= 1e-9 * max(1.0, abs(e)) for t, e in equity.items())


@settings(relaxed, max_examples=40)
@given(case=cases())
def test_the_interval_is_that_of_both_orders_really_run(case):
    bars, events, decisions, configs = case
    totals, nets = run_engine(*case).totals, []
    for order in ("worst", "best"):
        trades, _, _ = run(bars, events, decisions, {s: {**c, "ambiguity": order} for s, c in configs.items()})
        nets.append(sum(t["net"] for t in trades))
    assert [totals["worst_net"], totals["best_net"]] == pytest.approx(sorted(nets), abs=1e-6)
    if all(c["ambiguity"] == configs[min(bars)]["ambiguity"] for c in configs.values()):
        assert totals["worst_net"] <= totals["net"] <= totals["best_net"]


def test_random_markets_reach_every_reason_and_outcome():
    "The property tests are worth what their markets reach."
    reasons, outcomes = set(), set()

    @settings(relaxed, max_examples=120, derandomize=True, database=None)
    @given(case=cases())
    def visit(case):
        result = run_engine(*case)
        reasons.update(result.trades["exit_reason"])
        outcomes.update(result.decisions["outcome"])

    visit()
    assert reasons == set(EXIT_REASONS) - {""} and outcomes == set(OUTCOMES)


def steps(bars, events, decisions, configs, chunk: int):
    "The same account, the kernel called for `chunk` rows at a time, its state carried in between."
    prepared = prepare({s: frame(b) for s, b in bars.items()}, {s: events_frame(e) for s, e in events.items()})
    config = [EngineConfig.model_validate(configs[s]) for s in prepared.symbols]
    table = _table(decisions_frame(decisions), prepared)
    row, coin, vol = table["row"].to_numpy("int64"), table["coin"].to_numpy("int64"), table["vol"].to_numpy()
    sigma = np.array([k.trailing_sigma(prepared.market.close[:, j].copy(), np.array([t]))[0] for t, j in zip(row, coin)])
    sigma = np.where(np.isfinite(vol), vol, sigma)
    n, close = len(prepared.symbols), prepared.market.close
    windows = np.array([0 if c.max_correlation is None else c.correlation_bars for c in config])[coin]
    known = [k.trailing_correlation(close[max(0, t - w) : t + 1], np.array([min(t, w)]), np.array([j]), np.array([w])) for t, j, w in zip(row, coin, windows)]
    known = np.concatenate([np.empty((0, n)), *known])
    book = k.Book(rules_of(config, prepared.symbols, prepared.step_ms), np.zeros(n, POSITION), config[0].initial_equity_usd,
                  config[0].max_positions or UNLIMITED)
    trades, equity = [], []
    for t in range(0, len(prepared.times), chunk):
        rows = slice(t, min(t + chunk, len(prepared.times)))
        due, size = (row >= t) & (row < t + chunk), rows.stop - t
        orders = k.Decisions(row[due], coin[due], table["side"].to_numpy("int64")[due], sigma[due], known[due])
        tape = k.Tape(np.zeros(n + due.sum() + 1, TRADE), np.zeros(due.sum(), np.int8), np.zeros(size), np.zeros(size), np.zeros(size, np.int64))
        count = k.fold(k.Market(*(a[rows] for a in prepared.market)), orders, book, tape, t)
        trades += [x.tobytes() for x in tape.trades[:count]]
        equity += tape.equity.tolist()
    return trades, equity


@settings(relaxed, max_examples=25)
@given(case=cases(), chunk=st.sampled_from([7, 40]))
def test_one_row_at_a_time_is_the_whole_history(case, chunk):
    whole = steps(*case, chunk=10_000)
    assert steps(*case, chunk=1) == whole == steps(*case, chunk=chunk)
    assert whole[1] == run_engine(*case).equity["equity"].tolist()


@settings(relaxed, max_examples=30)
@given(case=cases(coins=st.integers(2, 5)), data=st.data())
def test_the_order_of_coins_changes_nothing(case, data):
    bars, events, decisions, configs = case
    order = data.draw(st.permutations(list(bars)))
    shuffled = run_engine({s: bars[s] for s in order}, {s: events[s] for s in order if s in events}, data.draw(st.permutations(decisions)), configs)
    straight = run_engine(*case)
    assert shuffled.trades.equals(straight.trades) and shuffled.equity.equals(straight.equity) and shuffled.rejected == straight.rejected


@settings(relaxed, max_examples=30)
@given(case=cases(coins=st.just(3)))
def test_a_coin_alone_trades_as_in_company(case):
    "Without a limit and with a size that does not look at the equity, n coins are n accounts of one coin."
    bars, events, decisions, configs = case
    free = {s: {**c, "max_positions": None, "max_correlation": None, "size": {"notional_usd": 1000.0}} for s, c in configs.items()}
    together = run_engine(bars, events, decisions, free).trades
    for s in bars:
        alone = run_engine({s: bars[s]}, {s: events[s]} if s in events else {}, [d for d in decisions if d["symbol"] == s], free).trades
        assert alone.equals(together[together["symbol"] == s].reset_index(drop=True))


@settings(relaxed, max_examples=30)
@given(case=cases(), factor=st.sampled_from([0.125, 8.0, 1024.0]))
def test_price_times_k_and_quantity_over_k_leave_profit_alone(case, factor):
    bars, events, decisions, configs = case
    scaled = {s: [{**b, **{p: b[p] * factor for p in ("open", "high", "low", "close")}} for b in coin] for s, coin in bars.items()}
    units = {s: {**c, "contract_units": c["contract_units"] / factor} for s, c in configs.items()}
    before, after = run_engine(*case).trades, run_engine(scaled, events, decisions, units).trades
    assert before[["symbol", "entry_time", "exit_time", "exit_reason"]].equals(after[["symbol", "entry_time", "exit_time", "exit_reason"]])
    assert np.allclose(before["net"], after["net"], rtol=1e-12, atol=1e-9)
    assert np.allclose(before["quantity"], after["quantity"] * factor, rtol=1e-12)


@settings(relaxed, max_examples=30)
@given(case=cases(), cut=st.floats(0.3, 0.95))
def test_later_bars_never_change_a_closed_trade(case, cut):
    bars, events, decisions, configs = case
    times = sorted(b["time"] for coin in bars.values() for b in coin)
    now = times[int(cut * len(times))]
    # a coin that is cut leaves the account at its last bar: compare where all coins still have a bar at the cut
    head = {s: [b for b in coin if b["time"] <= now] for s, coin in bars.items()}
    if any(len(coin) < 2 or coin[-1]["time"] != now or coin[-1]["filled"] for coin in head.values()):
        return
    past = run_engine(head, events, [d for d in decisions if d["time"] <= now], configs).trades
    whole = run_engine(*case).trades
    closed = past[past["exit_reason"] != "end_of_data"].reset_index(drop=True)
    same = whole[to_ms(whole["exit_time"]) <= now]
    same = same[~((to_ms(same["exit_time"]) == now) & (same["exit_reason"] == "end_of_data"))].reset_index(drop=True)
    assert closed.equals(same)


@settings(relaxed, max_examples=40)
@given(case=cases())
def test_the_account_adds_up(case):
    result = run_engine(*case)
    t, totals = result.trades, result.totals
    assert np.allclose(t["net"], t["gross"] + t["slippage"] + t["fees"] + t["funding"], rtol=0, atol=1e-9)
    assert totals["net"] == pytest.approx(result.equity["equity"].iloc[-1] - totals["initial_equity_usd"], abs=1e-6)
    for cut in ("by_exit_reason", "by_side", "by_symbol"):
        for part in ("gross", "slippage", "fees", "funding", "net", "n_trades"):
            assert sum(row[part] for row in totals[cut].values()) == pytest.approx(totals[part], abs=1e-6)
    assert len(result.decisions) == len(case[2]) and sum(result.rejected.values()) + (result.decisions["outcome"] == "accepted").sum() == len(case[2])

"""Each convention of the engine by hand: a handful of bars, numbers that can be checked on paper."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.trading.engine import TRADE_COLUMNS, backtest, daily_returns, read_config
from cryptoalgo.trading.files import run_files, totals_text

START = pd.Timestamp("2024-01-01", tz="UTC")
FLAT = (100.0, 100.0, 100.0, 100.0)


def at(hour: float) -> pd.Timestamp:
    return START + pd.Timedelta(hours=hour)


def market(*bars: tuple[float, float, float, float] | None, start: int = 0) -> pd.DataFrame:
    "Hourly bars of (open, high, low, close); None is a missing bar."
    rows = {at(start + i): b for i, b in enumerate(bars) if b is not None}
    df = pd.DataFrame(list(rows.values()), columns=["open", "high", "low", "close"], index=pd.DatetimeIndex(rows, name="event_time"))
    return df.assign(volume=1.0)


def config(**keys):
    return read_config({"fee_bps": 0, "slippage_bps": 0, "size": {"contracts": 1}} | keys)


def orders(*rows: tuple, symbol: str = "X") -> pd.DataFrame:
    "(hour, side) or (hour, side, vol)."
    return pd.DataFrame([{"event_time": at(r[0]), "symbol": symbol, "side": r[1], "vol": r[2] if len(r) > 2 else np.nan} for r in rows])


def trades_of(bars, decisions, funding=None, **keys):
    events = pd.DataFrame({"funding_rate": [r for _, r in funding]}, index=pd.DatetimeIndex([at(h) for h, _ in funding])) if funding else None
    return backtest({"X": bars}, decisions, {"X": events} if funding else None, config(**keys))


def only(result) -> dict:
    assert len(result.trades) == 1
    return result.trades.iloc[0].to_dict()


def test_a_decision_fills_at_the_next_open_made_worse_on_both_sides():
    bars = market(FLAT, (110, 112, 109, 111), (112, 130, 111, 120))
    t = only(trades_of(bars, orders((0, 1)), slippage_bps=100, fee_bps=10, max_hold_bars=2))
    assert (t["decision_time"], t["entry_time"], t["exit_time"], t["exit_reason"]) == (at(0), at(1), at(2), "time")
    assert (t["entry_ref"], t["exit_ref"]) == (110, 120)
    assert t["entry_price"] == pytest.approx(111.1) and t["exit_price"] == pytest.approx(118.8)
    assert (t["gross"], t["slippage"]) == pytest.approx((10, -2.3))
    assert t["fees"] == pytest.approx(-(111.1 + 118.8) * 0.001) and t["net"] == pytest.approx(10 - 2.3 - 0.2299)


def test_a_short_gains_when_the_price_falls_and_is_slipped_the_other_way():
    t = only(trades_of(market(FLAT, FLAT, (90, 90, 80, 80)), orders((0, -1)), slippage_bps=100, max_hold_bars=2))
    assert t["entry_price"] == pytest.approx(99) and t["exit_price"] == pytest.approx(80.8)
    assert t["gross"] == 20 and t["net"] == pytest.approx(18.2)


@pytest.mark.parametrize("bar, reason, ref, both", [
    ((100, 101, 98, 100), "stop_loss", 98, False),  # touching counts
    ((100, 104, 99, 100), "take_profit", 104, False),
    ((100, 104, 98, 100), "stop_loss", 98, True),  # the order is unknown: the worse, and flagged
    ((97, 105, 96, 100), "stop_loss_gap", 97, False),
    ((105, 106, 97, 100), "take_profit_gap", 105, False),
    ((98, 100, 98, 100), "stop_loss", 98, False),  # an open on the barrier touches it, it is not beyond
])
def test_barriers_of_a_long(bar, reason, ref, both):
    t = only(trades_of(market(FLAT, FLAT, bar, FLAT), orders((0, 1, 0.02)), vol_mult_sl=1, vol_mult_tp=2))
    assert (t["exit_reason"], t["exit_ref"], t["both_touched"], t["exit_time"]) == (reason, ref, both, at(2))


@pytest.mark.parametrize("bar, reason, ref, both", [
    ((100, 102, 99, 100), "stop_loss", 102, False),
    ((100, 101, 96, 100), "take_profit", 96, False),
    ((100, 102, 96, 100), "stop_loss", 102, True),
    ((103, 105, 90, 100), "stop_loss_gap", 103, False),
    ((95, 103, 94, 100), "take_profit_gap", 95, False),
])
def test_barriers_of_a_short(bar, reason, ref, both):
    t = only(trades_of(market(FLAT, FLAT, bar, FLAT), orders((0, -1, 0.02)), vol_mult_sl=1, vol_mult_tp=2))
    assert (t["exit_reason"], t["exit_ref"], t["both_touched"]) == (reason, ref, both)


def test_barriers_act_in_the_entry_bar_and_hang_on_the_fill():
    t = only(trades_of(market(FLAT, (100, 100, 98.5, 99), FLAT), orders((0, 1, 0.02)), vol_mult_sl=1, slippage_bps=100))
    assert (t["entry_price"], t["exit_ref"], t["exit_time"]) == (101, pytest.approx(98.98), at(1))


def test_the_entry_bar_is_bar_number_one():
    bars = market(*[FLAT] * 5)
    assert only(trades_of(bars, orders((0, 1)), max_hold_bars=1))["exit_time"] == at(1)
    assert only(trades_of(bars, orders((0, 1)), max_hold_bars=3))["exit_time"] == at(3)


def test_a_stop_in_the_last_bar_of_holding_comes_before_the_time_exit():
    assert only(trades_of(market(FLAT, FLAT, (100, 100, 97, 99)), orders((0, 1, 0.02)), vol_mult_sl=1, max_hold_bars=2))["exit_reason"] == "stop_loss"


def test_funding_at_an_open_is_paid_by_who_held_before_it():
    bars = market(FLAT, (200, 200, 200, 200), (300, 300, 300, 300), (400, 400, 400, 400), FLAT)
    entry, middle = [(1, 0.01)], [(1, 0.01), (2, 0.01)]
    assert only(trades_of(bars, orders((0, 1)), entry, max_hold_bars=2))["funding"] == 0  # an entry at that open does not pay
    assert only(trades_of(bars, orders((0, 1)), middle, max_hold_bars=2))["funding"] == pytest.approx(-3)
    flip = trades_of(bars, orders((0, 1), (2, -1)), [(3, 0.01)], flip_exit=True).trades
    assert flip["funding"].tolist() == [-4.0, 0.0]  # paid although that open ends the position; the reversal does not


def test_a_stamp_inside_a_bar_is_paid_by_who_holds_after_its_open():
    bars = market(FLAT, (200, 200, 200, 200), (300, 300, 300, 300), (400, 400, 400, 400), FLAT)
    assert only(trades_of(bars, orders((0, 1)), [(1.5, 0.01)], max_hold_bars=2))["funding"] == pytest.approx(-2)
    flip = trades_of(bars, orders((0, 1), (2, -1)), [(3.5, 0.01)], flip_exit=True).trades
    assert flip["funding"].tolist() == [0.0, 4.0]
    stopped = only(trades_of(market(FLAT, FLAT, (90, 90, 90, 90)), orders((0, 1, 0.02)), [(2.5, 0.01)], vol_mult_sl=1))
    assert stopped["funding"] == pytest.approx(-0.9) and stopped["exit_reason"] == "stop_loss_gap"  # paid before the gap check


def test_funding_goes_on_in_a_filled_bar_at_its_flat_open():
    t = only(trades_of(market(FLAT, (100, 120, 100, 120), None, FLAT), orders((0, 1)), [(2, 0.01)], max_hold_bars=3))
    assert t["funding"] == pytest.approx(-1.2) and t["exit_time"] == at(3)


def test_what_waits_takes_the_next_real_open():
    t = only(trades_of(market(FLAT, None, None, (103, 103, 103, 103), FLAT), orders((0, 1)), max_hold_bars=1))
    assert (t["entry_time"], t["entry_ref"]) == (at(3), 103)


def test_a_time_exit_due_on_a_filled_bar_takes_the_next_real_open():
    t = only(trades_of(market(FLAT, FLAT, None, None, (97, 97, 97, 97)), orders((0, 1, 0.02)), max_hold_bars=2, vol_mult_sl=1))
    assert (t["exit_time"], t["exit_ref"], t["exit_reason"]) == (at(4), 97, "time")  # waits since bar 2, and comes before the gap check


def test_the_reason_that_waited_first_stands():
    bars = market(FLAT, FLAT, FLAT, None, FLAT, FLAT)  # the flip of hour 2 waits when the time exit falls due on the filled hour 3
    result = trades_of(bars, orders((0, 1), (2, -1)), flip_exit=True, max_hold_bars=3)
    assert result.trades["exit_reason"].tolist() == ["flip", "end_of_data"] and result.trades["exit_time"][0] == at(4)


def test_nothing_is_decided_on_a_filled_bar():
    result = trades_of(market(FLAT, None, FLAT, FLAT), orders((1, 1)))
    assert len(result.trades) == 0 and result.rejected == {"filled_bar": 1}


def test_filled_bars_count_for_sigma_with_return_zero():
    close = 100 * np.cumprod(np.r_[1.0, np.tile([1.02, 0.99], 15)])
    bars = market(*[(c, c, c, c) for c in close])
    holed = bars.drop(index=[at(20), at(21)])
    filled = close.copy()
    filled[20:22] = close[19]
    returns = filled[1:] / filled[:-1] - 1
    t = only(trades_of(holed, orders((28, 1)), vol_mult_sl=50))
    assert t["sigma"] == pytest.approx(returns[4:28].std(ddof=1), rel=1e-12)


def test_sigma_needs_24_returns_where_a_barrier_needs_sigma():
    bars = market(*[(100 + i % 3,) * 4 for i in range(40)])
    assert trades_of(bars, orders((23, 1)), vol_mult_sl=50).rejected == {"no_sigma": 1}
    assert len(trades_of(bars, orders((24, 1)), vol_mult_sl=50).trades) == 1
    assert len(trades_of(bars, orders((3, 1))).trades) == 1  # no barrier, no σ needed
    assert only(trades_of(bars, orders((30, 1, 0.123)), vol_mult_sl=50))["sigma"] == 0.123


@pytest.mark.parametrize("cooldown, first", [(0, 3), (1, 4), (3, 6)])
def test_the_first_usable_decision_is_that_of_the_exit_bar_plus_cooldown(cooldown, first):
    bars = market(*[FLAT] * 12)  # the trade of bar 1 ends at the close of bar 3: x = 3
    result = trades_of(bars, orders(*[(h, 1) for h in range(10)]), max_hold_bars=3, cooldown_bars=cooldown)
    assert result.trades["decision_time"].tolist()[:2] == [at(0), at(first)]


def test_flip_reverses_at_one_open_without_cooldown_and_only_leaves_with_one():
    bars = market(FLAT, FLAT, FLAT, (104, 104, 104, 104), FLAT, FLAT)
    both = trades_of(bars, orders((0, 1), (2, -1)), flip_exit=True).trades
    assert both["exit_reason"].tolist() == ["flip", "end_of_data"] and both["side"].tolist() == [1, -1]
    assert both["exit_time"][0] == both["entry_time"][1] == at(3) and both["gross"].tolist() == [4.0, 4.0]
    out = trades_of(bars, orders((0, 1), (2, -1)), flip_exit=True, cooldown_bars=1)
    assert out.trades["exit_reason"].tolist() == ["flip"] and out.rejected == {}
    assert trades_of(bars, orders((0, 1), (2, -1))).rejected == {"in_position": 1}  # off: dropped
    assert trades_of(bars, orders((0, 1), (2, 1)), flip_exit=True).rejected == {"in_position": 1}  # same side: dropped


def joint(decisions, n=8, **keys):
    return backtest({s: market(*[FLAT] * n) for s in "ABC"}, decisions, None, config(**keys))


def test_the_limit_takes_the_best_ranks_and_ties_by_symbol():
    d = pd.DataFrame({"event_time": at(0), "symbol": ["A", "B", "C"], "side": 1, "rank": [3, 1, 2]})
    assert joint(d, max_positions=2).trades["symbol"].tolist() == ["B", "C"]
    assert joint(d.assign(rank=1), max_positions=2).trades["symbol"].tolist() == ["A", "B"]
    assert joint(d.drop(columns="rank"), max_positions=1).rejected == {"max_positions": 2}


def test_a_position_about_to_leave_still_counts_and_a_reversal_takes_its_place():
    d = pd.DataFrame({"event_time": [at(0), at(2), at(2)], "symbol": ["A", "A", "B"], "side": [1, -1, 1], "rank": [1, 1, 2]})
    leaving = joint(d, max_positions=1, flip_exit=True, cooldown_bars=1)
    assert leaving.trades["symbol"].tolist() == ["A"] and leaving.rejected == {"max_positions": 1}
    reversing = joint(d, max_positions=1, flip_exit=True)
    assert reversing.trades[["symbol", "side"]].values.tolist() == [["A", 1], ["A", -1]]


def test_a_time_exit_frees_its_place_for_the_decision_at_that_close():
    d = pd.DataFrame({"event_time": [at(0), at(2)], "symbol": ["A", "B"], "side": 1})
    assert joint(d, max_positions=1, max_hold_bars=2).trades["symbol"].tolist() == ["A", "B"]
    assert joint(d, max_positions=1, max_hold_bars=3).rejected == {"max_positions": 1}


def test_sizes():
    bars = market(*[(50.0, 50.0, 50.0, 50.0)] * 5)
    assert only(trades_of(bars, orders((0, 1)), size={"notional_usd": 1010}, slippage_bps=100))["quantity"] == pytest.approx(20)
    assert only(trades_of(bars, orders((0, 1)), size={"contracts": 3}, contract_units=0.1))["quantity"] == pytest.approx(0.3)
    profile = {"profile": True, "position_size": 0.1, "vol_target": 0.02, "leverage": 4}
    # 10,000 × .1 × 4 × (.02/.016 = 1.25) = 5,000 $ over contracts of 6 × 50 = 300 $: 16 whole ones
    account = {"initial_equity_usd": 10_000, "contract_units": 6.0, "size": profile}
    assert only(trades_of(bars, orders((0, 1, 0.016)), **account))["quantity"] == 96
    assert only(trades_of(bars, orders((0, 1, 1.0)), **account))["quantity"] == 24  # scaled by .3 at least
    assert trades_of(bars, orders((0, 1, 0.02)), **{**account, "contract_units": 90.0}).rejected == {"size_zero": 1}


def test_a_profile_is_sized_on_the_equity_marked_at_the_decision():
    bars = {"A": market(FLAT, FLAT, (200, 200, 200, 200), FLAT), "B": market(*[FLAT] * 4)}
    d = pd.DataFrame({"event_time": [at(0), at(2)], "symbol": ["A", "B"], "side": 1, "vol": 0.02})
    size = {"profile": True, "position_size": 0.5, "vol_target": 0.02, "leverage": 1}
    t = backtest(bars, d, None, config(size=size, initial_equity_usd=1000.0)).trades
    assert t["quantity"].tolist() == [5, 7]  # 500 $ of A gain 500 $ by the close of hour 2: half of 1,500 $ buys 7 of B


def test_a_minimum_fee_is_per_contract_and_fill():
    t = only(trades_of(market(*[FLAT] * 4), orders((0, 1)), fee_bps=1, min_fee_usd_per_contract=0.2, contract_units=0.5, size={"contracts": 4}))
    assert t["fees"] == pytest.approx(-1.6)


def test_an_open_position_leaves_at_the_last_real_close():
    bars = market(FLAT, FLAT, (100, 130, 100, 120), (120, 120, 120, 120)).assign(is_filled=[False, False, False, True])
    t = only(trades_of(bars, orders((0, 1))))
    assert (t["exit_reason"], t["exit_time"], t["exit_ref"]) == ("end_of_data", at(2), 120)
    assert trades_of(market(FLAT, FLAT), orders((1, 1))).rejected == {"end_of_data": 1}


def test_equity_is_marked_at_every_close():
    result = trades_of(market(FLAT, FLAT, (100, 120, 80, 90), (90, 110, 90, 105)), orders((0, 1)), [(2, 0.01)], fee_bps=100, initial_equity_usd=1000)
    assert result.equity["equity"].tolist() == pytest.approx([1000, 999, 988, 1001.95])
    assert result.equity["position"].tolist() == [0, 100, 90, 0] and result.equity["n_open"].tolist() == [0, 1, 1, 0]
    assert result.equity["drawdown"].min() == pytest.approx(-0.012)


def test_a_breakeven_stop_moves_at_a_close_and_acts_from_the_next_bar():
    keys = {"vol_mult_sl": 5, "breakeven_sigma": 2}  # σ = 1 %: stop 95, moved to the entry by a close of 102
    t = only(trades_of(market(FLAT, (100, 103, 99, 102), (102, 103, 100, 101)), orders((0, 1, 0.01)), **keys))
    assert (t["exit_time"], t["exit_ref"], t["exit_reason"]) == (at(2), 100, "stop_loss")  # the low of 99 came before the close
    short_of_it = market(FLAT, (100, 103, 99, 101.99), (102, 103, 100, 101))
    assert only(trades_of(short_of_it, orders((0, 1, 0.01)), **keys))["exit_reason"] == "end_of_data"
    gone_by = market(FLAT, (100, 103, 99, 102), (102, 102, 100.5, 101), (99, 99, 99, 99))
    assert only(trades_of(gone_by, orders((0, 1, 0.01)), **keys))["exit_reason"] == "stop_loss_gap"  # it stays, though 101 is below 102


def test_breakeven_is_the_entry_fill():
    bars = market(FLAT, (100, 104, 100, 104), (104, 104, 100.5, 102))
    assert only(trades_of(bars, orders((0, 1, 0.01)), breakeven_sigma=2, slippage_bps=100))["exit_ref"] == 101
    assert only(trades_of(market(FLAT, (100, 100, 96, 97), (97, 99.5, 97, 98)), orders((0, -1, 0.01)), breakeven_sigma=2, slippage_bps=100))["exit_ref"] == 99


def test_a_trailing_stop_follows_the_best_close_and_never_moves_back():
    bars = market(FLAT, (100, 120, 100, 110), (110, 110, 106, 108), (108, 108, 104.4, 105))  # 5 % behind 110: 104.5; the high of 120 is no close
    t = only(trades_of(bars, orders((0, 1, 0.01)), trail_sigma=5))
    assert (t["exit_time"], t["exit_ref"], t["exit_reason"]) == (at(3), pytest.approx(104.5), "stop_loss")
    short = market(FLAT, (100, 100, 80, 90), (90, 94, 90, 92), (92, 94.5, 92, 94))
    t = only(trades_of(short, orders((0, -1, 0.01)), trail_sigma=5))
    assert (t["exit_time"], t["exit_ref"]) == (at(3), pytest.approx(94.5))


def test_a_gap_through_a_trailing_stop_fills_at_the_open():
    bars = market(FLAT, (100, 110, 100, 110), (103, 112, 103, 111))
    t = only(trades_of(bars, orders((0, 1, 0.01)), trail_sigma=5, vol_mult_sl=20, vol_mult_tp=50))
    assert (t["exit_reason"], t["exit_ref"]) == ("stop_loss_gap", 103)


def test_a_trailing_stop_that_is_wider_than_the_stop_leaves_it_alone():
    bars = market(FLAT, (100, 101, 99, 100), (100, 100, 97, 98))
    assert only(trades_of(bars, orders((0, 1, 0.01)), trail_sigma=5, vol_mult_sl=2))["exit_ref"] == 98


MARGIN = {"leverage": 4, "maintenance_margin": 0.005}  # of a long at 100: liquidated at 75 / .995 = 75.377
LEVEL = 75 / 0.995


@pytest.mark.parametrize("bar, keys, reason, ref", [
    ((100, 100, 75.3, 90), {}, "liquidation", LEVEL),
    ((100, 100, 75.4, 90), {}, "end_of_data", 90),
    ((100, 100, 70, 90), {"vol_mult_sl": 30}, "liquidation", LEVEL),  # the stop at 70 lies behind it
    ((100, 100, 70, 90), {"vol_mult_sl": 10}, "stop_loss", 90),  # the stop at 90 is reached first
    ((75.2, 80, 70, 75), {}, "liquidation", 75.2),  # an open beyond the level
    ((50, 80, 50, 75), {}, "liquidation", 50),  # however far: nobody promised a fill at the level
    ((80, 80, 70, 75), {"vol_mult_sl": 10}, "stop_loss_gap", 80),
    ((50, 80, 50, 75), {"vol_mult_sl": 10}, "stop_loss_gap", 50),  # the stop is met first
])
def test_liquidation_of_a_long(bar, keys, reason, ref):
    t = only(trades_of(market(FLAT, FLAT, bar), orders((0, 1, 0.01)), **MARGIN, **keys))
    assert (t["exit_reason"], t["exit_ref"]) == (reason, pytest.approx(ref))


def test_liquidation_of_a_short_and_its_room():
    for high, reason in ((125 / 1.005, "liquidation"), (124.3, "end_of_data")):
        t = only(trades_of(market(FLAT, FLAT, (100, high, 100, 100)), orders((0, -1)), **MARGIN))
        assert t["exit_reason"] == reason
    assert only(trades_of(market(FLAT, FLAT, (300,) * 4), orders((0, -1)), **MARGIN))["net"] == -200  # an open beyond the level


def test_a_liquidation_that_shares_its_bar_with_the_target_is_taken_and_flagged():
    bars = market(FLAT, FLAT, (100, 140, 60, 100))
    worst = only(trades_of(bars, orders((0, 1, 0.01)), **MARGIN, vol_mult_tp=30))
    best = only(trades_of(bars, orders((0, 1, 0.01)), **MARGIN, vol_mult_tp=30, ambiguity="best"))
    assert (worst["exit_reason"], worst["both_touched"]) == ("liquidation", True)
    assert (best["exit_reason"], best["both_touched"], best["exit_ref"]) == ("take_profit", True, pytest.approx(130))


def test_a_moved_stop_comes_before_the_liquidation():
    bars = market(FLAT, (100, 110, 100, 110), (110, 110, 70, 90))
    assert only(trades_of(bars, orders((0, 1, 0.01)), **MARGIN, breakeven_sigma=2))["exit_reason"] == "stop_loss"


def test_funding_and_fees_do_not_eat_the_margin():
    bars = market(FLAT, FLAT, (100, 100, 76, 90))  # 5 % of funding would leave a margin of 20: liquidated at 80.4
    t = only(trades_of(bars, orders((0, 1)), [(1.5, 0.05)], **MARGIN))
    assert t["exit_reason"] == "end_of_data" and t["funding"] == pytest.approx(-5)


def test_an_exit_that_waited_comes_before_a_liquidation():
    t = only(trades_of(market(FLAT, FLAT, None, (50, 50, 50, 50)), orders((0, 1)), max_hold_bars=2, **MARGIN))
    assert (t["exit_reason"], t["exit_ref"], t["net"]) == ("time", 50, -50)


def test_leverage_is_the_sizes_own_unless_it_is_given():
    bars = market(FLAT, FLAT, (100, 100, 70, 90))
    profile = {"profile": True, "position_size": 0.1, "vol_target": 0.01, "leverage": 2}
    low = {"size": profile, "maintenance_margin": 0.005, "vol_mult_sl": 90}
    assert only(trades_of(bars, orders((0, 1, 0.01)), **low))["exit_reason"] == "end_of_data"
    assert only(trades_of(bars, orders((0, 1, 0.01)), **low, leverage=4))["exit_reason"] == "liquidation"
    assert only(trades_of(bars, orders((0, 1)), maintenance_margin=0.005))["exit_reason"] == "liquidation"  # 4 by default
    assert only(trades_of(bars, orders((0, 1))))["exit_reason"] == "end_of_data"  # no rate, no liquidation


def test_the_order_inside_a_bar_can_be_the_better_one():
    bars = market(FLAT, FLAT, (100, 104, 98, 100), (100, 103, 98, 100), (100, 104, 100, 100))
    keys = {"vol_mult_sl": 1, "vol_mult_tp": 2}
    best = trades_of(bars, orders((0, 1, 0.02)), **keys, ambiguity="best")
    assert (only(best)["exit_reason"], only(best)["both_touched"], only(best)["exit_ref"]) == ("take_profit", True, 104)
    worst = trades_of(bars, orders((0, 1, 0.02)), **keys)
    for result, net in ((best, 4), (worst, -2)):
        assert result.totals["net"] == net and (result.totals["worst_net"], result.totals["best_net"]) == (-2, 4)
    gap = trades_of(market(FLAT, FLAT, (97, 105, 97, 100)), orders((0, 1, 0.02)), **keys, ambiguity="best")
    assert (only(gap)["exit_reason"], only(gap)["both_touched"]) == ("stop_loss_gap", False)  # the open is first, whoever asks
    assert gap.totals["worst_net"] == gap.totals["best_net"] == gap.totals["net"] == -3


def test_the_interval_follows_what_comes_of_each_order():
    "Stopped in hour 2 the coin is free to buy again in hour 3; with the target first it waits for its cool-down as well, but 6 $ richer."
    bars = market(FLAT, FLAT, (100, 104, 98, 100), FLAT, (110, 110, 110, 110), FLAT)
    result = trades_of(bars, orders((0, 1, 0.02), (2, 1, 0.02)), vol_mult_sl=1, vol_mult_tp=2)
    assert result.trades["net"].tolist() == pytest.approx([-2, 10]) and result.trades["exit_reason"].tolist() == ["stop_loss", "take_profit_gap"]
    assert (result.totals["worst_net"], result.totals["best_net"]) == pytest.approx((8, 14))


def test_an_entry_below_the_minimum_notional_is_not_made():
    bars = market(*[(50.0, 50.0, 50.0, 50.0)] * 5)
    for size, least in (({"notional_usd": 99}, 99), ({"contracts": 3}, 150)):
        assert len(trades_of(bars, orders((0, 1)), size=size, min_notional_usd=least).trades) == 1
        assert trades_of(bars, orders((0, 1)), size=size, min_notional_usd=least + 1).rejected == {"min_notional": 1}
    profile = {"profile": True, "position_size": 0.01, "vol_target": 0.02, "leverage": 1}  # 100 $: two coins
    asked = {"size": profile, "initial_equity_usd": 10_000}
    assert trades_of(bars, orders((0, 1, 0.02)), **asked, min_notional_usd=101).rejected == {"min_notional": 1}
    assert only(trades_of(bars, orders((0, 1, 0.02)), **asked, min_notional_usd=100))["quantity"] == 2


def test_the_equity_that_sizes_grows_no_faster_than_asked_and_falls_at_once():
    rich = (200.0, 200.0, 200.0, 200.0)
    bars = {"A": market(FLAT, FLAT, *[rich] * 168, (40, 40, 40, 40), (40, 40, 40, 40)), "B": market(*[(1.0, 1.0, 1.0, 1.0)] * 172)}
    d = pd.DataFrame({"event_time": [at(0), at(2), at(168), at(170)], "symbol": ["A", "B", "B", "B"], "side": 1, "vol": 0.02})
    size = {"profile": True, "position_size": 0.5, "vol_target": 0.02, "leverage": 1, "max_weekly_growth": 0.03}
    asked = {"initial_equity_usd": 100_000.0, "max_hold_bars": 200}
    b = {"size": size, "max_hold_bars": 1, "initial_equity_usd": 100_000.0}
    t = backtest(bars, d, None, {"A": config(size=size, **asked), "B": config(**b)}).trades
    base = 100_000 * 1.03 ** (np.array([1, 167]) / 168)  # the account holds 150,000 from hour 2 on, the base begins to grow there
    assert t["quantity"].tolist() == [500, *np.floor(base / 2), 35_000]  # at hour 170 the account holds 70,000
    free = {**b, "size": size | {"max_weekly_growth": None}}
    assert backtest(bars, d, None, {"A": config(size=size, **asked), "B": config(**free)}).trades["quantity"].tolist()[1] == 75_000


def together(*signs: int, n: int = 60) -> dict:
    "Coins whose returns are those of the first, or their opposite, or (0) their own."
    rng = np.random.default_rng(1)
    common, own = rng.normal(0, 0.01, n), rng.normal(0, 0.01, n)
    closes = [100 * np.cumprod(1 + (s * common if s else own)) for s in signs]
    return {name: market(*[(c, c, c, c) for c in close]) for name, close in zip("ABCD", closes)}


def held_and_asked(first: tuple, *then: tuple, bars=None, **keys) -> dict:
    d = pd.concat([orders(first[1:], symbol=first[0]), *(orders(x[1:], symbol=x[0]) for x in then)], ignore_index=True)
    return backtest(bars or together(1, 1, -1, 0), d, None, config(max_correlation=0.75, correlation_bars=24, **keys)).rejected


def test_a_coin_that_goes_along_with_what_is_held_is_turned_away():
    assert held_and_asked(("A", 30, 1), ("B", 40, 1)) == {"correlated": 1}
    assert held_and_asked(("A", 30, 1), ("B", 40, -1)) == {}  # the other side
    assert held_and_asked(("A", 30, 1), ("C", 40, 1)) == {} and held_and_asked(("A", 30, 1), ("D", 40, 1)) == {}
    assert held_and_asked(("A", 30, 1), ("B", 30, 1)) == {"correlated": 1}  # A waits
    assert held_and_asked(("A", 30, 1), ("B", 40, 1), max_hold_bars=5) == {}  # A has left
    assert held_and_asked(("A", 10, 1), ("B", 20, 1)) == {}  # 20 returns are too few to know


def test_a_position_about_to_leave_counts_and_a_reversal_does_not_count_what_it_closes():
    assert held_and_asked(("A", 30, 1), ("A", 40, -1), ("B", 40, 1), flip_exit=True, cooldown_bars=1) == {"correlated": 1}
    assert held_and_asked(("A", 30, 1), ("A", 40, -1), ("B", 40, -1), flip_exit=True) == {"correlated": 1}  # the reversal that waits
    assert held_and_asked(("A", 30, 1), ("A", 40, -1), flip_exit=True) == {}


def test_a_reversal_that_would_go_along_with_another_coin_only_leaves():
    d = pd.concat([orders((30, -1), symbol="B"), orders((30, 1), symbol="A"), orders((40, -1), symbol="A")], ignore_index=True)
    result = backtest(together(1, 1), d, None, config(max_correlation=0.75, correlation_bars=24, flip_exit=True))
    assert result.trades[["symbol", "exit_reason"]].values.tolist() == [["A", "flip"], ["B", "end_of_data"]] and result.rejected == {}


def test_no_decisions_is_no_trades():
    result = trades_of(market(FLAT, FLAT), orders().reindex(columns=["event_time", "symbol", "side"]))
    assert list(result.trades.columns) == TRADE_COLUMNS and result.totals["net"] == 0 and result.rejected == {}


@pytest.mark.parametrize(("compounds", "returns"), [(True, [0.02, 0, 0, 0, -0.5]), (False, [0.02, 0, 0, 0, -0.51])])
def test_daily_returns_keep_flat_days_and_holes(compounds, returns):
    equity = pd.DataFrame({"equity": [101.0, 102.0, 102.0, 51.0]}, index=[at(1), at(23), at(30), at(24 * 4)])
    result = replace(trades_of(market(FLAT, FLAT), orders().reindex(columns=["event_time", "symbol", "side"])), equity=equity,
                     totals={"initial_equity_usd": 100.0, "compounds": compounds})
    assert daily_returns(result).tolist() == pytest.approx(returns)


GOOD = market(*[FLAT] * 4)


@pytest.mark.parametrize("change, says", [
    ({"decisions": orders((9, 1))}, "no bar opens at that time"),
    ({"decisions": orders((0.5, 1))}, "no bar opens at that time"),
    ({"decisions": orders((0, 2))}, "side is 2"),
    ({"decisions": orders((0, 1)).assign(rank="first")}, "rank is first; it must be a number"),
    ({"decisions": orders((0, 1)).assign(vol="low")}, "vol is low; it must be a number"),
    ({"decisions": orders((0, 1), (0, -1))}, "second decision"),
    ({"decisions": orders((0, 1), symbol="Y")}, "no bars of Y"),
    ({"decisions": orders((0, 1, -1.0))}, "vol is -1.0"),
    ({"decisions": orders((0, 1)).rename(columns={"vol": "vola"})}, "did you mean 'vol'"),
    ({"decisions": orders((0, 1)).drop(columns="side")}, "no column 'side'"),
    ({"decisions": orders((0, 1)).assign(event_time="soon")}, "event_time is not a time"),
    ({"bars": {"X": GOOD.assign(close=[100, np.nan, 100, 100])}}, "finite prices"),
    ({"bars": {"X": GOOD.assign(low=101.0)}}, "low <= open"),
    ({"bars": {"X": GOOD.iloc[::-1]}}, "sort the bars"),
    ({"bars": {"X": GOOD.iloc[[0, 0, 1]]}}, "drop duplicates"),
    ({"bars": {"X": GOOD.drop(columns="open")}}, "without column open"),
    ({"bars": {"X": GOOD.iloc[:1]}}, "at least two"),
    ({"bars": {"X": GOOD.assign(is_filled=True)}}, "at least one real bar"),
    ({"bars": {}}, "at least one symbol"),
    ({"bars": {"X": GOOD, "Z": market(*[FLAT] * 4, start=1).set_index(GOOD.index + pd.Timedelta("7min"))}}, "one timeframe on one grid"),
    ({"funding": {"Q": pd.DataFrame({"funding_rate": [0.1]}, index=GOOD.index[:1])}}, "funding of Q"),
    ({"funding": {"X": pd.DataFrame({"funding_rate": [np.nan]}, index=GOOD.index[:1])}}, "missing rate is not 0"),
    ({"funding": {"X": pd.DataFrame({"funding_rate": [0.1, 0.1]}, index=GOOD.index[[0, 0]])}}, "paid twice"),
    ({"config": {"Y": config()}}, "none for X"),
])
def test_wrong_input_is_refused_in_one_line(change, says):
    asked = {"bars": {"X": GOOD}, "decisions": orders((0, 1)), "funding": None, "config": config()} | change
    with pytest.raises(InputError) as e:
        backtest(**asked)
    assert says in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("keys, says", [
    ({"fee": 1}, "did you mean 'fee_bps'"), ({"fee_bps": -1}, "fee_bps"), ({"max_hold_bars": 0}, "max_hold_bars"),
    ({"maintenance_margin": 0.05, "leverage": 20}, "use less leverage"), ({"maintenance_margin": 0.3}, "use less leverage"), ({"ambiguity": "middle"}, "ambiguity"),
    ({"max_correlation": 2}, "max_correlation"), ({"trail_sgma": 2}, "did you mean 'trail_sigma'"), ({"trail_sigma": 0}, "trail_sigma"),
    ({"size": {"contracts": 1, "profile": True}}, "exactly one"), ({"size": {}}, "exactly one"), ({"vol_mult_sl": 0}, "vol_mult_sl"),
])
def test_a_wrong_configuration_is_refused_in_one_line(keys, says):
    with pytest.raises(InputError) as e:
        config(**keys)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_costs_have_no_default():
    with pytest.raises(InputError, match="fee_bps"):
        read_config({"slippage_bps": 0, "size": {"contracts": 1}})


def test_account_keys_must_agree():
    configs = {"A": config(max_positions=1), "B": config(max_positions=2)}
    with pytest.raises(InputError, match="max_positions differs"):
        backtest({"A": GOOD, "B": GOOD}, orders((0, 1), symbol="A"), None, configs)


def test_files_give_what_frames_give(tmp_path):
    bars = market(*[(100 + i % 7, 108 + i % 7, 95 + i % 5, 100 + (i + 1) % 7) for i in range(60)])
    decisions = orders(*[(h, 1 if h % 2 else -1) for h in range(30, 50)]).drop(columns="vol")
    events = pd.DataFrame({"funding_rate": 1e-3}, index=pd.DatetimeIndex(bars.index[::8], name="timestamp"))
    keys = {"fee_bps": 5, "slippage_bps": 1, "vol_mult_tp": 2, "vol_mult_sl": None, "max_hold_bars": 4, "size": {"notional_usd": 1000}}
    bars.rename_axis("timestamp").to_csv(tmp_path / "X-1h.csv")
    events.to_csv(tmp_path / "X.csv")
    decisions.to_csv(tmp_path / "decisions.csv", index=False)
    (tmp_path / "config.json").write_text(json.dumps(keys))
    out = run_files(tmp_path / "decisions.csv", {"X": tmp_path / "X-1h.csv"}, {"": tmp_path / "X.csv"}, tmp_path / "config.json")
    wanted = backtest({"X": bars}, decisions, {"X": events}, read_config(keys))
    assert json.loads(json.dumps(out)) == json.loads(json.dumps(wanted.to_dict())) and len(out["trades"]) > 3
    assert out["trades"][0]["entry_time"].endswith("Z") and set(out["trades"][0]) == set(TRADE_COLUMNS)
    assert run_files(tmp_path / "decisions.csv", {"": tmp_path / "X-1h.csv"}, {}, tmp_path / "config.json")["totals"]["without_funding"] == ["X"]
    assert "total" in totals_text(out) and "take_profit" in totals_text(out)
    nothing = {"without_funding": [], "worst_net": 0.0, "best_net": 0.0}
    assert totals_text({"trades": [], "rejected": {"cooldown": 2}, "totals": nothing}) == "no trades\nrejected: 2 cooldown"
    assert "net -1.00 to 2.00" in totals_text({"trades": [], "rejected": {}, "totals": nothing | {"worst_net": -1.0, "best_net": 2.0}})
    bare, named, apart = tmp_path / "X-1h.csv", tmp_path / "BTCUSDT-1h.csv", tmp_path / "apart.csv"
    named.write_bytes(bare.read_bytes())
    with pytest.raises(InputError, match="decisions of X, and bars in BTCUSDT-1h.csv, which is named after BTCUSDT"):
        run_files(tmp_path / "decisions.csv", {"": named}, {}, tmp_path / "config.json")
    for kept in (events.iloc[:1], events.iloc[[0, -1]], events.assign(funding_rate=0.1).set_axis(events.index + pd.Timedelta("400D"))):
        kept.to_csv(apart)
        with pytest.raises(InputError, match="a missing rate is not a zero"):
            run_files(tmp_path / "decisions.csv", {"X": bare}, {"": apart}, tmp_path / "config.json")
    with pytest.raises(InputError, match="no such file"):
        run_files(tmp_path / "none.csv", {"X": tmp_path / "X-1h.csv"}, {}, tmp_path / "config.json")


@pytest.mark.parametrize("keys", [
    {"initial_equity_usd": float("inf")}, {"fee_bps": float("inf")}, {"size": {"notional_usd": float("inf")}}, {"size": {"contracts": 1e300}},
    {"max_hold_bars": 10**20}, {"max_positions": 10**20}, {"cooldown_bars": 10**20}])
def test_a_number_beyond_reason_is_refused_by_name(keys):
    (name,) = keys
    with pytest.raises(InputError, match=name):
        config(**keys)

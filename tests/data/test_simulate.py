"""The simulated market: reproducible, a martingale at edge 0 for any position, and worth what is planted at edge x."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from cryptoalgo.core.clock import timeframe_ms, to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import LabelParams, SimulatorParams, TurningPointParams
from cryptoalgo.features.labels import make_labels
from cryptoalgo.features.turning_points import turning_points
from cryptoalgo.data.simulate import FUNDING_CAP, FUNDING_H, HALF_LIFE_H, NEWS_H, NEWS_VARIANCE, SimulatedMarket, edge_per_hour, simulate

COINS = ["BTC", "ETH", "SOL", "XRP", "DOGE"]
HORIZON = 24


# --- reproducible -----------------------------------------------------------------------------------------------------

def frames(market: SimulatedMarket, coin: str) -> list[pd.DataFrame]:
    return [market.bars[coin], market.funding[coin], market.open_interest[coin], market.latent[coin], market.macro["SPY"]]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**40), days=st.integers(30, 60), more=st.integers(1, 30), edge=st.floats(0, 20))
def test_a_coin_depends_on_seed_and_name_alone_and_a_longer_market_begins_with_the_shorter(seed, days, more, edge):
    short = simulate(SimulatorParams(seed=seed, days=days, edge={"ETH": edge}), ["ETH"])
    long = simulate(SimulatorParams(seed=seed, days=days + more, edge={"ETH": edge, "BTC": 9.0}), ["SOL", "ETH", "BTC"])
    for a, b in zip(frames(short, "ETH"), frames(long, "ETH")):
        assert_frame_equal(a, b.iloc[: len(a)], check_exact=True)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**40), days=st.integers(30, 60), least=st.integers(2, 12), beyond=st.floats(0, 20))
def test_so_does_a_market_of_legs(seed, days, least, beyond):
    legs = TurningPointParams(least_h=least, mean_h=least + beyond)
    short = simulate(SimulatorParams(seed=seed, days=days, turning_points=legs), ["ETH"])
    long = simulate(SimulatorParams(seed=seed, days=days + 20, turning_points=legs), ["BTC", "ETH"])
    for a, b in zip(frames(short, "ETH"), frames(long, "ETH")):
        assert_frame_equal(a, b.iloc[: len(a)], check_exact=True)


def test_seeds_and_coins_differ():
    a, b = (simulate(SimulatorParams(seed=seed, days=30), ["BTC", "ETH"]) for seed in (1, 2))
    closes = [m.bars[c]["close"].pct_change().iloc[1:] for m in (a, b) for c in ("BTC", "ETH")]
    assert all((x != y).all() for i, x in enumerate(closes) for y in closes[:i])


def test_timeframes_are_the_same_market():
    params = SimulatorParams(seed=5, days=90, edge={"BTC": 12.0})
    fine = simulate(params, ["BTC"], "15m").bars["BTC"]
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum", "available_time": "last", "is_filled": "any"}
    for timeframe in ("1h", "4h"):
        coarse = simulate(params, ["BTC"], timeframe).bars["BTC"]
        resampled = fine.resample(timeframe).agg(how)
        assert_frame_equal(resampled.drop(columns="volume"), coarse.drop(columns="volume"), check_exact=True, check_freq=False)
        np.testing.assert_allclose(resampled["volume"], coarse["volume"], rtol=1e-12)  # sums in another order


# --- in the house's contracts -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("timeframe", ["15m", "1h", "4h"])
def test_frames_keep_their_contracts(timeframe):
    market = simulate(SimulatorParams(seed=3, start="2022-03-01", days=40), COINS, timeframe)
    span, hour = timeframe_ms(timeframe), timeframe_ms("1h")
    for coin in COINS:
        bars, funding, oi = market.bars[coin], market.funding[coin], market.open_interest[coin]
        assert list(bars.columns) == ["open", "high", "low", "close", "volume", "available_time", "is_filled"]
        assert str(bars.index.dtype) == str(bars["available_time"].dtype) == "datetime64[ms, UTC]" and bars.index.name == "event_time"
        assert len(bars) == 40 * 24 * hour // span and str(bars.index[0]) == "2022-03-01 00:00:00+00:00"
        assert (np.diff(to_ms(bars.index)) == span).all()
        assert (to_ms(bars["available_time"]) - to_ms(bars.index) == span).all()
        assert not bars["is_filled"].any() and (bars["volume"] > 0).all() and (bars["low"] > 0).all()
        assert (bars["high"] >= bars[["open", "close", "low"]].max(axis=1)).all()
        assert (bars["low"] <= bars[["open", "close"]].min(axis=1)).all()
        assert (funding.index.hour % FUNDING_H == 0).all() and len(funding) == 40 * 3
        assert (funding["available_time"] == funding.index).all() and (funding["funding_rate"].abs() <= FUNDING_CAP).all()
        assert (np.diff(to_ms(oi.index)) == hour).all() and (oi["open_interest"] > 0).all() and (oi["available_time"] == oi.index).all()
    spy = market.macro["SPY"]
    assert list(spy.columns) == list(market.bars["BTC"].columns)
    assert (spy.index.day_of_week < 5).all() and (spy["available_time"] - spy.index == pd.Timedelta(hours=21)).all()
    assert (spy["high"] >= spy[["open", "close"]].max(axis=1)).all() and (spy["low"] <= spy[["open", "close"]].min(axis=1)).all()


@pytest.mark.parametrize("params, coins, timeframe, word", [
    ({}, ["BTC", "BTC"], "1h", "each once"), ({}, [], "1h", "at least one"), ({}, ["btc/usd"], "1h", "'btc/usd'"),
    ({"edge": {"BTC": -1.0}}, ["BTC"], "1h", "-1"), ({"edge": {"BTC": float("nan")}}, ["BTC"], "1h", "nan"),
    ({"start": "2022-13-01"}, ["BTC"], "1h", "2022-13-01"), ({"start": "2022-01-01 07:00"}, ["BTC"], "1h", "UTC day"),
    ({"edge": {"BTC": 1.0}, "turning_points": TurningPointParams()}, ["BTC"], "1h", "one or the other"),
    ({}, ["BTC"], "1d", "'1d'"), ({}, ["BTC"], "7m", "'7m'"), ({}, ["BTC"], "hourly", "'hourly'"),
])
def test_what_it_cannot_take_is_named(params, coins, timeframe, word):
    with pytest.raises(InputError, match=word):
        simulate(SimulatorParams(**params), coins, timeframe)


# --- like a market of coins -------------------------------------------------------------------------------------------

def test_it_looks_like_a_market_of_coins():
    market = simulate(SimulatorParams(seed=11), COINS)
    r = pd.DataFrame({c: np.log(b["close"]).diff() for c, b in market.bars.items()}).iloc[1:]
    pairs = r.corr().to_numpy()[np.triu_indices(len(COINS), 1)]
    assert (pairs > 0.45).all() and (pairs < 0.85).all()
    assert ((r.std() > 0.004) & (r.std() < 0.012)).all()
    assert (r.kurt() > 3).all()  # excess; jumps and clustering
    assert all(r[c].abs().autocorr(lag) > 0.1 for c in COINS for lag in (1, 24))
    for coin in COINS:
        bars, hidden = market.bars[coin], market.latent[coin]
        assert np.corrcoef(np.log(bars["volume"] * bars["close"]), np.log(bars["high"] / bars["low"]))[0, 1] > 0.4
        assert hidden.groupby("turbulent")["sigma"].mean().loc[True] > 1.6 * hidden.groupby("turbulent")["sigma"].mean().loc[False]
        rate = market.funding[coin]["funding_rate"]
        past = np.log(bars["close"]).diff(24).shift(1).reindex(rate.index)
        assert 0.5e-4 < rate.mean() < 1.5e-4 and rate.corr(past) > 0.4
        oi = np.log(market.open_interest[coin]["open_interest"])
        assert oi.diff(24).corr(np.log(bars["close"]).shift(1).diff(24)) > 0.2
    daily = np.log(market.bars["BTC"]["close"][20::24]).diff()  # from 21:00 to 21:00
    spy = np.log(market.macro["SPY"]["close"]).diff()
    assert 0.2 < spy.corr(daily.set_axis(daily.index.normalize())) < 0.7


# --- a martingale at edge 0 -------------------------------------------------------------------------------------------

@cache
def blank(timeframe: str, n: int) -> list[dict[str, np.ndarray]]:
    "One coin of n independent markets without an edge, as arrays by bar; `rate` is settled at the open, `sigma` is that of an hour."
    markets = []
    for seed in range(1000, 1000 + n):
        market = simulate(SimulatorParams(seed=seed), ["BTC"], timeframe)
        bars = market.bars["BTC"]
        markets.append({k: bars[k].to_numpy() for k in ("open", "high", "low", "close")} | {
            "rate": market.funding["BTC"]["funding_rate"].reindex(bars.index, fill_value=0.0).to_numpy(),
            "sigma": market.latent["BTC"]["sigma"].reindex(bars.index, method="ffill").to_numpy(),
            "hour": bars.index.hour.to_numpy(),
        })
    return markets


def held(m: dict[str, np.ndarray], entry: np.ndarray, side: int, target: float, stop: float, horizon: int, pay: bool = True) -> np.ndarray:
    "Gain, in σ, of positions entered at the open of bars `entry`: gap exits at the open, touches at the level, stop first, else the last close."
    at = entry[:, None] + np.arange(horizon)
    scale = m["sigma"][entry] * m["open"][entry]
    worth = {k: side * (m[k][at] - m["open"][entry][:, None]) / scale[:, None] for k in ("open", "high", "low", "close")}
    best, worst = (worth["high"], worth["low"]) if side > 0 else (worth["low"], worth["high"])
    gap = (worth["open"] <= -stop) | (worth["open"] >= target)
    hit = gap | (worst <= -stop) | (best >= target)
    bar = np.where(hit.any(axis=1), hit.argmax(axis=1), horizon - 1)
    row = np.arange(len(entry))
    gain = np.where(gap[row, bar], worth["open"][row, bar],
                    np.where(worst[row, bar] <= -stop, -stop, np.where(best[row, bar] >= target, target, worth["close"][row, bar])))
    fees = np.where((np.arange(horizon) > 0) & (np.arange(horizon) <= bar[:, None]), m["rate"][at] * m["open"][at], 0.0).sum(axis=1)
    return gain - pay * side * fees / scale


def t_of(gains: list[np.ndarray]) -> float:
    "Mean over standard error; positions that follow one another are martingale differences, so no more is needed."
    x = np.concatenate(gains)
    return x.mean() / (x.std() / np.sqrt(len(x)))


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("target, stop", [(np.inf, np.inf), (3, 3), (6, 2), (2, 6), (1, np.inf), (np.inf, 1), (0.5, 8)])
def test_no_barrier_gains(side, target, stop):
    gains = [held(m, np.arange(1, len(m["open"]) - HORIZON, HORIZON), side, target, stop, HORIZON) for m in blank("1h", 100)]
    assert sum(map(len, gains)) > 100_000
    assert abs(t_of(gains)) < 4


@pytest.mark.parametrize("timeframe", ["15m", "4h"])
@pytest.mark.parametrize("target, stop", [(np.inf, 1), (1, np.inf), (4, 2)])
def test_no_barrier_gains_at_other_timeframes(timeframe, target, stop):
    gains = [held(m, np.arange(1, len(m["open"]) - 12, 12), side, target, stop, 12) for m in blank(timeframe, 15) for side in (1, -1)]
    assert abs(t_of(gains)) < 4


@pytest.mark.parametrize("name", ["trend", "fade", "collect funding", "after a large move"])
def test_no_rule_on_the_past_gains(name):
    def gains(m):
        entry = np.arange(HORIZON * 2, len(m["open"]) - HORIZON, HORIZON)
        past = np.log(m["close"][entry - 1] / m["close"][entry - 1 - HORIZON])
        side = {"trend": np.sign(past), "fade": -np.sign(past), "collect funding": -np.sign(m["rate"][entry // FUNDING_H * FUNDING_H]),
                "after a large move": np.sign(past) * (np.abs(past) > 8 * m["sigma"][entry])}[name]
        return np.concatenate([held(m, entry[side == s], int(s), 3, 3, HORIZON) for s in (1, -1)])

    assert abs(t_of([gains(m) for m in blank("1h", 100)])) < 4


def test_the_check_sees_funding_that_is_left_out():
    "The last hour before a settlement, held over it: nothing when funding is paid, about 1 bp when it is not."
    def gains(pay):
        return [held(m, np.flatnonzero(m["hour"] % FUNDING_H == FUNDING_H - 1)[:-1], 1, np.inf, np.inf, 2, pay) for m in blank("1h", 100)]

    assert abs(t_of(gains(pay=True))) < 4 < 6 < t_of(gains(pay=False))


def test_the_check_sees_a_path_that_is_watched_too_coarsely():
    "A stop that acts only on the close of a bar, yet fills at its level, gains."
    coarse = [m | {"high": np.maximum(m["open"], m["close"]), "low": np.minimum(m["open"], m["close"])} for m in blank("1h", 100)]
    gains = [held(m, np.arange(1, len(m["open"]) - HORIZON, HORIZON), 1, np.inf, 1, HORIZON) for m in coarse]
    assert t_of(gains) > 6


def test_a_settlement_without_news_leaves_its_holder_where_he_was():
    bars, rate = (simulate(SimulatorParams(seed=2), ["BTC"]).bars["BTC"], simulate(SimulatorParams(seed=2), ["BTC"]).funding["BTC"]["funding_rate"])
    after = bars["open"].reindex(rate.index)[1:] * (1 - rate[1:])
    ratio = after / bars["close"].shift(1).reindex(rate.index)[1:]
    quiet = np.isclose(ratio, 1, rtol=0, atol=1e-12)
    assert 0.9 < quiet.mean() < 1  # the others carry a jump
    inside = bars.index.hour % NEWS_H != 0
    assert (bars["open"] == bars["close"].shift(1))[inside].all()


# --- worth what is planted --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("edge", [0.0, 8.0, 14.0])
def test_a_perfect_trader_gets_what_is_planted_within_the_stated_error(edge):
    planted = [simulate(SimulatorParams(seed=seed, edge={"BTC": edge}), ["BTC"]).planted["BTC"] for seed in range(60)]
    z = np.array([(p.sharpe - edge) / p.standard_error for p in planted])
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert 0.7 < z.std() < 1.3
    assert f"{edge:g}" in str(planted[0]) if edge else "nothing planted" in str(planted[0])


def test_the_signal_can_be_computed_from_past_candles():
    market = simulate(SimulatorParams(seed=4, edge={"BTC": 12.0}), ["BTC"])
    bars, signal = market.bars["BTC"], market.latent["BTC"]["signal"].to_numpy()
    move = np.log(bars["close"] / bars["open"])
    z = (move / move.rolling(48).std().shift(1)).fillna(0.0)
    phi = 0.5 ** (1 / HALF_LIFE_H)
    decay = phi - edge_per_hour(12.0) * np.sqrt(1 + NEWS_VARIANCE) * np.sqrt(1 - phi**2)
    seen = z.ewm(alpha=1 - decay).mean().shift(1)  # the innovations form, known before the bar
    assert np.corrcoef(seen[200:], signal[200:])[0, 1] > 0.93
    assert np.corrcoef(signal[1:], z[1:])[0, 1] == pytest.approx(edge_per_hour(12.0), abs=0.03)


def test_an_edge_moves_the_body_of_the_bars_only_where_it_is_planted():
    plain, edged = (simulate(SimulatorParams(seed=6, days=60, edge=edge), ["BTC", "ETH"]) for edge in ({}, {"BTC": 10.0}))
    assert_frame_equal(plain.bars["ETH"], edged.bars["ETH"], check_exact=True)
    drift = np.log(edged.bars["BTC"]["close"] / edged.bars["BTC"]["open"]) - np.log(plain.bars["BTC"]["close"] / plain.bars["BTC"]["open"])
    hidden = edged.latent["BTC"]
    expected = edge_per_hour(10.0) * np.sqrt(1 + NEWS_VARIANCE) * hidden["sigma"] * hidden["signal"]
    np.testing.assert_allclose(drift, expected, atol=1e-12)


# --- made for the turning-point criteria ------------------------------------------------------------------------------

LEGS = TurningPointParams()


def test_a_mean_leg_shorter_than_the_least_is_refused():
    with pytest.raises(ValueError, match="mean_h must not be below least_h"):
        TurningPointParams(least_h=12, mean_h=8)


def test_the_market_of_legs_moves_the_price_and_nothing_else():
    plain, legs = (simulate(SimulatorParams(seed=8, days=200, turning_points=t), ["BTC"]) for t in (None, LEGS))
    for name in ("funding", "open_interest"):
        a, b = getattr(plain, name)["BTC"], getattr(legs, name)["BTC"]
        assert_frame_equal(a, b, check_exact=True)
    for ticker in plain.macro:
        assert_frame_equal(plain.macro[ticker], legs.macro[ticker], check_exact=True)
    assert "leg" not in plain.latent["BTC"] and list(legs.latent["BTC"])[:-1] == list(plain.latent["BTC"])
    hidden = legs.latent["BTC"]
    np.testing.assert_allclose(hidden["sigma"], LEGS.noise * plain.latent["BTC"]["sigma"])
    body = np.log(legs.bars["BTC"]["close"] / legs.bars["BTC"]["open"])
    left = (body - hidden["leg"] * hidden["sigma"] / LEGS.noise) / hidden["sigma"]  # a standard normal, jumps are outside the body
    assert abs(left.mean()) < 0.06 and left.std() == pytest.approx(1, abs=0.03)


def test_a_leg_lasts_at_least_so_long_and_its_end_beyond_that_is_a_surprise():
    moves = np.concatenate([simulate(SimulatorParams(seed=s, turning_points=LEGS), ["BTC"]).latent["BTC"]["leg"] for s in range(3)])
    begins = np.abs(moves) == LEGS.turn
    lengths = np.diff(np.flatnonzero(begins))
    assert lengths.min() >= LEGS.least_h and lengths.mean() == pytest.approx(LEGS.mean_h, rel=0.02)
    ends = [np.mean(lengths[lengths > k] == k + 1) for k in range(LEGS.least_h - 1, LEGS.least_h + 4)]
    assert max(ends) - min(ends) < 0.1  # the same chance every hour: what was says nothing of when it ends
    sides = np.sign(moves[begins])
    assert (sides[1:] == -sides[:-1]).mean() > 0.999  # all but where one market follows another


def test_a_careful_trader_gets_what_is_planted_within_the_stated_error():
    planted = [simulate(SimulatorParams(seed=seed, days=365, turning_points=LEGS), ["BTC"]).planted["BTC"] for seed in range(40)]
    z = np.array([(p.sharpe - p.edge) / p.standard_error for p in planted])
    assert abs(z.mean()) < 4 / np.sqrt(len(z)) and 0.6 < z.std() < 1.5
    assert "No market is like this one" in str(planted[0]) and "134" in str(planted[0])


def test_the_return_after_a_turn_has_two_values_there_and_any_in_the_ordinary_market():
    labels = LabelParams(kind="turning_point_return", horizon_bars=4, up_sigma=4, down_sigma=4, vol_bars=20)
    for turning, (least, most) in ((LEGS, (0.0, 0.35)), (None, (0.6, 1.0))):
        bars = simulate(SimulatorParams(seed=9, days=365, turning_points=turning), ["BTC"]).bars["BTC"]
        found = make_labels(bars, labels)
        y = found["y"][found["y"].fillna(0) != 0]
        assert 0.01 < len(y) / found["y"].notna().sum() < 0.2
        assert least < y.abs().std() / y.abs().mean() < most
        says = turning_points(bars, "1h")["direction"].reindex(y.index)
        right = (np.sign(y) == says)[says != 0].mean()
        assert right > 0.97 if turning else 0.4 < right < 0.6

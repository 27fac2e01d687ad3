"""The whole registry: bit for bit from any start and bar by bar, against an independent definition, on rough markets."""

import hashlib
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feature_market import clean_market, rough_market, same_bits

import cryptoalgo.features.catalogue  # noqa: F401
from cryptoalgo.core.errors import InputError
from cryptoalgo.features.registry import FeatureSet

FEATURES = FeatureSet()
BARS, CONTEXT = rough_market(9_000)
WHOLE = FEATURES.compute(BARS, CONTEXT)
CUTS = (1, 400, 1301, *np.random.default_rng(5).integers(2, 5_500, 9).tolist())
PARTS = {cut: FEATURES.compute(BARS.iloc[cut:], CONTEXT.iloc[cut:]) for cut in CUTS}
GAPS = np.flatnonzero(np.diff(BARS.index.asi8) != 3_600_000) + 1
BY_NAME = {f.name: f for f in FEATURES.features}


@pytest.mark.parametrize("name", FEATURES.names)
def test_a_later_start_gives_the_same_bits_from_the_declared_lookback_on(name):
    lookback = BY_NAME[name].lookback
    for cut, part in PARTS.items():
        assert same_bits(part[name].iloc[lookback:], WHOLE[name].iloc[cut + lookback :]).all(), f"cut at row {cut}"
        warm = min([lookback, *(g - cut for g in GAPS if g > cut)])
        assert part[name].iloc[:warm].isna().all(), "a number before the look-back was seen"


def test_bar_by_bar_gives_the_same_bits_as_the_batch():
    stream = FEATURES.stream()
    values = [BARS[c] if c in BARS else CONTEXT[c] for c in FEATURES.inputs]
    rows = np.array([stream.push(*bar).copy() for bar in zip(BARS.index.asi8.tolist(), *(v.tolist() for v in values))])
    assert same_bits(rows, WHOLE).all()


def test_a_stream_warmed_by_a_batch_goes_on_with_the_same_bits():
    for cut in (3_000, 5_001, 8_100):
        stream = FEATURES.stream()
        stream.extend(BARS.iloc[:cut], CONTEXT.iloc[:cut])
        assert same_bits(stream.extend(BARS.iloc[cut:], CONTEXT.iloc[cut:]), WHOLE.iloc[cut:]).all()


def test_later_bars_never_change_earlier_rows():
    for cut in (2_700, 6_003, 8_999):
        assert same_bits(FEATURES.compute(BARS.iloc[:cut], CONTEXT.iloc[:cut]), WHOLE.iloc[:cut]).all()


def test_every_feature_has_the_same_bits_alone_as_in_company():
    for group in ("momentum", "volatility", "multi_timeframe"):
        names = [f.name for f in FEATURES.features if f.group == group][::3]
        assert same_bits(FeatureSet(tuple(names)).compute(BARS, CONTEXT), WHOLE[names]).all(), group


def test_two_threads_and_another_process_give_the_same_bits():
    with ThreadPoolExecutor(2) as pool:
        for again in pool.map(lambda _: FEATURES.compute(BARS, CONTEXT), range(2)):
            assert same_bits(again, WHOLE).all()
    script = ("import sys, hashlib; sys.path.insert(0, sys.argv[1]); from feature_market import rough_market; import cryptoalgo.features.catalogue;"
              "from cryptoalgo.features.registry import FeatureSet;"
              "print(hashlib.sha256(FeatureSet().compute(*rough_market(9_000)).to_numpy().tobytes()).hexdigest())")
    done = subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(WHOLE.to_numpy().tobytes()).hexdigest()


def test_every_input_matters_and_none_is_infinite():
    assert not np.isinf(WHOLE.to_numpy()).any()
    assert WHOLE.notna().any().all() and (WHOLE.astype("float64").std() > 0).all()
    assert WHOLE.to_numpy().dtype == np.float32 and WHOLE.index.equals(BARS.index)


def test_degenerate_markets_give_numbers_or_nan():
    bars, context = clean_market(3_200)
    flat = bars.assign(open=5.0, high=5.0, low=5.0, close=5.0, volume=0.0)
    table = FEATURES.compute(flat, context).iloc[-1]
    expected = {"rsi_14": 0.0, "stoch": 0.0, "adx": 0.0, "bb_position_20": 0.0, "range_position_24h": 0.5, "body_to_range": 0.0,
                "return_24h": 0.0, "ma_distance_24h": 0.0, "volatility_24h": 0.0, "is_up_bar": 0.0}
    assert table[list(expected)].to_dict() == expected
    assert table[["ret_skew_72h", "vol_zscore", "volume_ratio_20", "vwap_distance_20"]].isna().all()
    assert FEATURES.compute(bars.iloc[:1], context.iloc[:1]).shape == (1, len(FEATURES.names))
    assert FEATURES.compute(bars.iloc[:0], context.iloc[:0]).shape == (0, len(FEATURES.names))


def test_missing_context_is_refused_by_name_unless_its_group_is_left_out():
    with pytest.raises(InputError, match="funding_rate.*funding_rate_bps.*leave out funding_oi"):
        FEATURES.compute(BARS)
    needs = {"funding_oi", "cross_coin", "macro", "costs"}
    without = FeatureSet(tuple(g for g in FEATURES.registry.groups if g not in needs)).compute(BARS)
    assert same_bits(without, WHOLE[without.columns]).all()


def test_missing_open_interest_stays_missing():
    changes = WHOLE[["oi_change_1h", "oi_change_24h"]]
    assert changes[CONTEXT["open_interest"].isna()].isna().all().all()


def test_hours_become_bars_of_each_timeframe():
    names = {tf: set(FeatureSet(timeframe=tf).names) for tf in ("15m", "1h", "4h")}
    assert names["15m"] == names["1h"]
    assert names["1h"] - names["4h"] == {"return_1h", "volatility_1h", "volume_ratio_1h", "oi_change_1h", "btc_return_1h", "momentum_accel_6h",
                                         "autocorr_1h", "autocorr_6h"}
    assert {f.name: f.lookback for f in FeatureSet(("return_24h",), "15m").features} == {"return_24h": 96}
    with pytest.raises(InputError, match="return_1h.*does not exist at 4h"):
        FeatureSet(("return_1h",), "4h").names


# An independent definition of every feature, in pandas on the whole history.

def _wilder(x, n):
    return x.ewm(alpha=1 / n, adjust=False).mean()


def _rsi(c, n):
    move = c.diff().fillna(0.0)
    return 100 * _wilder(move.clip(lower=0), n) / _wilder(move.abs(), n)


def _bb(c):
    return (c - c.rolling(20).mean()) / (2 * c.rolling(20).std(ddof=0))


def _macd(c):
    line = c.ewm(span=12, adjust=False).mean() - c.ewm(span=26, adjust=False).mean()
    return (line - line.ewm(span=9, adjust=False).mean()) / c


def _true_range(b):
    before = b.close.shift()
    return pd.concat([b.high - b.low, (b.high - before).abs(), (b.low - before).abs()], axis=1).max(axis=1)


def _direction(b):
    up, down, reach = b.high.diff(), -b.low.diff(), _wilder(_true_range(b), 14)
    plus = 100 * _wilder(up.where((up > down) & (up > 0), 0.0), 14) / reach
    minus = 100 * _wilder(down.where((down > up) & (down > 0), 0.0), 14) / reach
    return plus, minus


def _long(b, hours):
    "Whole bars of that many hours, indexed by the time at which they close."
    rule = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    whole = b.resample(f"{hours}h", origin="epoch").agg(rule)[b.close.resample(f"{hours}h", origin="epoch").count() == hours]
    return whole.set_axis(whole.index + pd.Timedelta(hours=hours - 1))


def _zscore(x, n):
    return (x - x.rolling(n).mean()) / x.rolling(n).std()


def _capped_runs(condition, cap):
    return condition.groupby((~condition).cumsum()).cumsum().clip(upper=cap).astype(float)


def _hurst(p):
    lags = np.array([1, 2, 4, 8])
    return np.polyfit(np.log(lags), [math.log(np.mean((p[q:] - p[:-q]) ** 2)) for q in lags], 1)[0] / 2


def _entropy(p):
    _, counts = np.unique([np.argsort(p[k : k + 3], kind="stable").tolist() for k in range(len(p) - 2)], axis=0, return_counts=True)
    share = counts / counts.sum()
    return -(share * np.log(share)).sum() / math.log(6)


def _cusum(z):
    up = down = 0.0
    for x in z:
        up, down = max(up + x - 0.5, 0.0), max(down - x - 0.5, 0.0)
    return up - down


def _divergence(c, oscillator):
    p, q = np.sign(c.diff(10)), np.sign(oscillator.diff(10))
    return q.where(p * q < 0, 0.0)


def oracles(b, x):
    "name -> column, each from its definition."
    c, v, r = b.close, b.volume, b.close.pct_change()
    plus, minus = _direction(b)
    adx = _wilder(100 * (plus - minus).abs() / (plus + minus), 14)
    lowest, highest = b.low.rolling(14).min(), b.high.rolling(14).max()
    stoch = (100 * (c - lowest) / (highest - lowest)).rolling(3).mean()
    vol24, spread, volume20 = r.rolling(24).std(), (b.high - b.low) / c, v / v.rolling(20).mean()
    up, down, price = c > b.open, c < b.open, (b.high + b.low + c) / 3
    out = {f"return_{n}h": c.pct_change(n) for n in (1, 4, 12, 24, 48, 168)}
    out |= {f"roc_{n}": c.pct_change(n) for n in (3, 5, 10, 20)}
    out |= {f"roc_{n}_accel": c.pct_change(n).diff(5) for n in (5, 10)}
    out |= {f"rsi_{n}": _rsi(c, n) for n in (6, 7, 14)}
    out |= {"macd_hist": _macd(c), "stoch": stoch, "di_diff": plus - minus, "adx": adx, "bb_position_20": _bb(c),
            "volume_ratio_20": volume20}
    out |= {f"{k}_vel": out[k].diff() for k in ("rsi_7", "rsi_14", "macd_hist", "stoch", "di_diff", "adx", "bb_position_20",
                                               "volume_ratio_20")}
    out |= {f"{k}_accel": out[k].diff().diff() for k in ("rsi_14", "macd_hist")}
    out |= {f"ma_distance_{n}h": c / c.rolling(n).mean() - 1 for n in (24, 168)}
    out |= {"trend_sma20_50": c.rolling(20).mean() / c.rolling(50).mean() - 1,
            "trend_strength_24h": c.diff(24) / c.diff().abs().rolling(24).sum(),
            "volatility_1h": r.abs(), "volatility_4h": r.rolling(4).std(), "volatility_24h": vol24,
            "parkinson_vol_24h": ((np.log(b.high / b.low) ** 2).rolling(24).mean() / (4 * math.log(2))) ** 0.5,
            "atr_pct_24h": _true_range(b).rolling(24).mean() / c, "atr_14": _wilder(_true_range(b), 14) / c,
            "vol_regime_ratio": vol24 / r.rolling(168).std(), "vol_percentile": vol24.rolling(168).rank(pct=True),
            "vol_zscore": _zscore(vol24, 168),
            "squeeze_duration": _capped_runs(2 * c.rolling(20).std(ddof=0) < 1.5 * _wilder(_true_range(b), 20), 50),
            "volume_ratio_1h": v / v.rolling(168).mean(), "volume_ratio_24h": v.rolling(24).mean() / v.rolling(168).mean(),
            "volume_zscore_24h": _zscore(v, 24),
            "buy_volume_ratio_24h": (v * (up + 0.5 * (c == b.open))).rolling(24).sum() / v.rolling(24).sum(),
            "vwap_distance_20": c / ((price * v).rolling(20).sum() / v.rolling(20).sum()) - 1}
    for n in (24, 72):
        low, high = b.low.rolling(n).min(), b.high.rolling(n).max()
        out |= {f"range_position_{n}h": (c - low) / (high - low), f"cumulative_funding_{n}h": 1e4 * x.funding_event.rolling(n).sum()}
    out |= {"body_to_range": (c - b.open).abs() / (b.high - b.low), "close_to_high": (b.high - c) / (b.high - b.low),
            "close_to_low": (c - b.low) / (b.high - b.low), "adr_20": spread.rolling(20).mean(),
            "adr_up_bars": spread.where(up).rolling(20, min_periods=1).mean(),
            "adr_down_bars": spread.where(down).rolling(20, min_periods=1).mean(), "is_up_bar": up.astype(float),
            "is_up_streak": _capped_runs(up, 24), "dist_from_high_20": c / b.high.rolling(20).max() - 1,
            "dist_from_low_20": c / b.low.rolling(20).min() - 1,
            "ret_skew_72h": r.rolling(72).skew(), "ret_kurt_72h": r.rolling(72).kurt(),
            "hurst_40": np.log(c).rolling(40).apply(_hurst, raw=True),
            "permutation_entropy_10": c.rolling(10).apply(_entropy, raw=True),
            "cusum_24": (r / r.rolling(72).std()).rolling(24).apply(_cusum, raw=True)}
    for k in (2, 4):
        bar = _long(b, k)
        columns = {f"rsi_14_{k}x": _rsi(bar.close, 14), f"bb_position_20_{k}x": _bb(bar.close), f"macd_hist_{k}x": _macd(bar.close),
                   f"return_{k}x": bar.close.pct_change(), f"volume_ratio_20_{k}x": bar.volume / bar.volume.rolling(20).mean()}
        out |= {name: column.reindex(b.index).ffill() for name, column in columns.items()}
    out.pop("volume_ratio_20_2x")
    out |= {"rsi_x_bb": (out["rsi_14"] / 50 - 1) * out["bb_position_20"], "rsi_x_stoch": (out["rsi_14"] / 50 - 1) * (stoch / 50 - 1),
            "macd_x_volume": out["macd_hist"] * volume20, "bb_x_volume": out["bb_position_20"] * volume20,
            "adx_x_di": adx * (plus - minus) / 1e4}
    out |= {f"divergence_{k}": _divergence(c, out[k]) for k in ("rsi_14", "macd_hist", "stoch")}
    out |= {"funding_rate_bps": 1e4 * x.funding_rate, "funding_rate_zscore": _zscore(x.funding_rate, 720)}
    return out | {f"oi_change_{n}h": x.open_interest.pct_change(n) for n in (1, 4, 24)}


def _flag(condition):
    return condition.astype(float)


def _streak(condition, cap):
    return _capped_runs(condition, cap)


def _outside(b, n):
    top, bottom = b.high.rolling(n).max().shift(), b.low.rolling(n).min().shift()
    return (b.close - top).clip(lower=0) - (bottom - b.close).clip(lower=0)


def shared_oracles(b, x, out):
    "The rest of the shared groups, each from its definition; `out` holds those that they build on."
    c, h, l, v, r = b.close, b.high, b.low, b.volume, b.close.pct_change()
    volume20 = v / v.rolling(20).mean()
    new = {f"{k}_accel": out[k].diff().diff() for k in ("rsi_7", "stoch", "di_diff", "adx", "bb_position_20", "volume_ratio_20")}
    new |= {f"{k}_vel": out[k].diff() for k in ("atr_14", "vol_regime_ratio")}
    new |= {"price_rsi_momentum_align": np.sign(c.diff(10)) * np.sign(out["rsi_14"].diff(10)), "is_strong_trend": _flag(out["adx"] > 25),
            "is_weak_trend": _flag(out["adx"] < 20), "volume_momentum_5": v.rolling(5).sum() / v.rolling(5).sum().shift(5) - 1,
            "is_high_volume": _flag(volume20 > 1.5),
            "range_position_20": (c - l.rolling(20).min()) / (h.rolling(20).max() - l.rolling(20).min()),
            "is_new_high_20": _flag(h == h.rolling(20).max()), "is_new_low_20": _flag(l == l.rolling(20).min()),
            "consecutive_higher_highs": _streak(h.diff() > 0, 24), "consecutive_lower_lows": _streak(l.diff() < 0, 24)}
    for k in ("rsi_14", "macd_hist"):
        p, q = (m / m.rolling(72).std() for m in (c.diff(10), out[k].diff(10)))
        new[f"divergence_{k}_strength"] = (np.sign(q) * (p * q).abs() ** 0.5).where(p * q < 0, 0.0)
    rank = out["vol_percentile"]
    high = rank > 2 / 3
    new |= {"vol_regime_low": _flag(rank <= 1 / 3), "vol_regime_med": _flag((rank > 1 / 3) & ~high), "vol_regime_high": _flag(high),
            "vol_regime_high_bars": _streak(high, 168), "trend_regime": np.sign(c.rolling(50).mean() - c.rolling(200).mean())}
    t, day = b.index, 2 * np.pi * b.index.hour / 24
    week = t.dayofweek * 24 + t.hour
    calendar = {"hour_sin": np.sin(day), "hour_cos": np.cos(day), "week_sin": np.sin(2 * np.pi * week / 168), "week_cos": np.cos(2 * np.pi * week / 168),
                "hour_of_week": week, "is_weekend": t.dayofweek >= 5, "hours_since_funding": t.hour % 8}
    new |= {name: pd.Series(np.asarray(values, "float64"), t) for name, values in calendar.items()}
    top, bottom = h.rolling(24).max().shift(), l.rolling(24).min().shift()
    new |= {"fee_hurdle_pct": 100 * x.round_trip_cost, "expected_cost_to_vol_ratio": x.round_trip_cost / (out["volatility_24h"] * 24**0.5),
            "breakout_vs_cost": ((c / top - 1).clip(lower=0) - (1 - c / bottom).clip(lower=0)) / x.round_trip_cost}
    new |= {f"roc_{n}": c.pct_change(n) for n in (1, 4, 12, 24)} | {f"sma_ratio_{n}": c / c.rolling(n).mean() - 1 for n in (10, 20)}
    new |= {f"volatility_{n}": r.rolling(n).std() for n in (10, 24)}
    line, middle, spread = c.ewm(span=12, adjust=False).mean() - c.ewm(span=26, adjust=False).mean(), c.rolling(20).mean(), c.rolling(20).std(ddof=0)
    return new | {
        "roc_1_lag1": r.shift(), "volume_ratio_5": v / v.rolling(5).mean(), "volume_surge_10": v / v.rolling(10).mean().shift(),
        "range_expansion_5": (h - l) / (h - l).rolling(5).mean().shift(),
        "momentum_strength": np.cbrt(c.pct_change(4) * c.pct_change(12) * c.pct_change(24)),
        "momentum_strength_20": np.cbrt(c.pct_change(5) * c.pct_change(10) * c.pct_change(20)),
        "macd_line": line / c, "macd_signal": line.ewm(span=9, adjust=False).mean() / c, "bb_upper_20": (middle + 2 * spread) / c - 1,
        "bb_middle_20": middle / c - 1, "bb_lower_20": (middle - 2 * spread) / c - 1, "log_volume": np.log(1 + v), "log_volume_20": np.log(1 + v.rolling(20).mean())}


def market_oracles(b, x):
    "What other markets say."
    c, r, m = b.close, b.close.pct_change(), x.btc_close.pct_change()
    out = {f"btc_return_{n}h": x.btc_close.pct_change(n) for n in (1, 4, 24)}
    out |= {f"btc_rel_return_{n}h": c.pct_change(n) - x.btc_close.pct_change(n) for n in (4, 24, 72)}
    price = c / x.btc_close
    beta = {n: r.rolling(n).cov(m, ddof=0) / m.rolling(n).var(ddof=0) for n in (72, 168)}
    out |= {"btc_lead": m.shift() - r, "btc_relative_strength_168h": price / price.rolling(168).mean() - 1,
            "btc_lead_correlation_168h": r.rolling(168).corr(m.shift()), "btc_residual_return_24h": c.pct_change(24) - beta[168] * x.btc_close.pct_change(24)}
    out |= {f"btc_correlation_{n}h": r.rolling(n).corr(m) for n in (72, 168)} | {f"btc_beta_{n}h": beta[n] for n in (72, 168)}
    out |= {f"{k}_return_{n}h": x[k].pct_change(n) for n in (24, 120) for k in ("spy", "qqq", "dxy", "gld", "tlt")}
    return out | {"vix_level": x.vix, "vix_change_24h": x.vix.diff(24), "vix_change_120h": x.vix.diff(120), "vix_zscore_720h": _zscore(x.vix, 720),
                  "spy_rel_return_120h": c.pct_change(120) - x.spy.pct_change(120)}


def coin_oracles(b, out):
    "The sets of single coins."
    o, c, h, l, v, r = b.open, b.close, b.high, b.low, b.volume, b.close.pct_change()
    reach, usual, atr14 = _true_range(b), b.close.pct_change().rolling(168).std(), _wilder(_true_range(b), 14)
    new = {f"zscore_{n}h": _zscore(c, n) for n in (24, 48, 72, 168)}
    for d in (10, 20):
        top, bottom = h.rolling(24 * d).max(), l.rolling(24 * d).min()
        new |= {f"at_max_{d}d": _flag(h == top), f"at_min_{d}d": _flag(l == bottom), f"dist_from_max_{d}d": c / top - 1, f"dist_from_min_{d}d": c / bottom - 1}
    new |= {f"rsi_{n}_oversold": _flag(_rsi(c, n) < 30) for n in (6, 14, 28)} | {f"rsi_{n}_overbought": _flag(_rsi(c, n) > 70) for n in (6, 14, 28)}
    width = c.rolling(20).std(ddof=0) / c.rolling(20).mean()
    new |= {"volume_climax": _flag(v > 3 * v.rolling(168).mean()), "bb_squeeze": _flag(width < 0.6 * width.rolling(168).mean()),
            "consecutive_up": _streak(c.diff() > 0, 24), "consecutive_down": _streak(c.diff() < 0, 24)}
    impulse = {n: c.pct_change(n) / (usual * n**0.5) for n in (4, 12, 24, 48)}
    new |= {f"trend_spread_{n}h": c.rolling(n // 3).mean() / c.rolling(n).mean() - 1 for n in (12, 24, 72, 168)}
    new |= {f"impulse_{n}h": impulse[n] for n in (12, 24, 48)}
    new |= {"volume_support": (v * np.sign(c - o)).rolling(24).sum() / v.rolling(24).sum() * np.sign(c.diff(24)),
            "pullback_depth_72h": (h.rolling(72).max() - c) / atr14,
            "breakout_pressure": (2 * out["range_position_24h"] - 1) * v.rolling(4).mean() / v.rolling(24).mean()}
    new |= {f"momentum_accel_{n}h": c.pct_change(n) - c.pct_change(n).shift(n) for n in (6, 12, 24, 48)}
    new |= {f"efficiency_ratio_{n}h": c.diff(n).abs() / c.diff().abs().rolling(n).sum() for n in (24, 72)}
    new |= {f"breakout_strength_{n}h": (c - h.rolling(n).max().shift()) / atr14 for n in (24, 72, 168)}
    new |= {f"ret_autocorr_lag{k}": r.rolling(72).corr(r.shift(k)) for k in (1, 2, 4)}
    vol12 = r.rolling(12).std()
    new |= {"vol_surge_persistence": _streak(vol12 > 1.5 * usual, 48), "vol_term_structure": vol12 / r.rolling(72).std(),
            "range_expansion": reach.rolling(4).mean() / reach.rolling(72).mean()}
    span = {n: h.rolling(n).max() - l.rolling(n).min() for n in (24, 168)}
    wick = ((np.minimum(o, c) - l) - (h - np.maximum(o, c))) / (h - l)
    side = np.sign(_outside(b, 24))
    new |= {"compression_ratio": span[24] / span[168], "breakout_distance": _outside(b, 72) / atr14,
            "whipsaw_score": _flag(c.diff() * c.diff().shift() < 0).rolling(24).mean(),
            "body_efficiency": (c - o).rolling(24).sum().abs() / (h - l).rolling(24).sum(), "volume_breakout_confirm": side * out["volume_ratio_20"],
            "reversal_pressure": wick.rolling(12).mean()}
    crowd, big = _zscore(v.rolling(4).mean(), 168).clip(lower=0), r.abs() > 2 * usual
    down, up = ((r.clip(upper=0) ** 2).rolling(72).sum(), (r.clip(lower=0) ** 2).rolling(72).sum())
    new |= {"fomo_score": impulse[24].clip(lower=0) * crowd, "panic_score": (-impulse[24]).clip(lower=0) * crowd,
            "pump_dump_signal": _flag((impulse[24].shift(4) > 2) & (impulse[4] < -1)), "consecutive_big_moves": _streak(big, 24),
            "vol_asymmetry": (down - up) / (down + up)}
    new |= {f"extreme_move_freq_{n}h": _flag(big).rolling(n).mean() for n in (24, 72)}
    new |= {f"autocorr_{n}h": r.rolling(168).corr(r.shift(n)) for n in (1, 6, 12, 24)}
    price, crowd_day = (h + l + c) / 3, v.rolling(24).mean()
    bottom = crowd_day.rolling(720).min()
    return new | {"vwap_distance_24h": c / ((price * v).rolling(24).sum() / v.rolling(24).sum()) - 1,
                  "hype_cycle_position": (crowd_day - bottom) / (crowd_day.rolling(720).max() - bottom)}


CLEAN_BARS, CLEAN_CONTEXT = clean_market(3_600, seed=11)
CLEAN = FEATURES.compute(CLEAN_BARS, CLEAN_CONTEXT).iloc[2_600:]
ORACLES = oracles(CLEAN_BARS, CLEAN_CONTEXT)
ORACLES |= shared_oracles(CLEAN_BARS, CLEAN_CONTEXT, ORACLES) | market_oracles(CLEAN_BARS, CLEAN_CONTEXT) | coin_oracles(CLEAN_BARS, ORACLES)


@pytest.mark.parametrize("name", FEATURES.names)
def test_every_feature_agrees_with_an_independent_definition(name, close_to):
    assert name in ORACLES, "a new feature needs an independent definition here"
    assert close_to(CLEAN[name], ORACLES[name].iloc[2_600:].to_numpy(), 2e-6)

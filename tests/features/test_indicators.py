"""The compiled indicators against TA-Lib, after the warm-up."""

import numpy as np
import pytest
from feature_market import clean_market

from cryptoalgo.features import indicators as I
from cryptoalgo.features.compiler import load, module_source
from cryptoalgo.features.expressions import INPUTS, change, ema, log, mean, source, std

talib = pytest.importorskip("talib")
BARS, _ = clean_market(5_000, seed=3)
o, h, l, c, v = (BARS[name].to_numpy() for name in INPUTS[:5])
high, low, close, volume = map(source, ("high", "low", "close", "volume"))
plus, minus = I.directional(high, low, close)
middle, spread = mean(close, 20), 2.0 * std(close, 20, ddof=0)
line = (ema(close, 12) - ema(close, 26)) / close
PAIRS = {
    "rsi_14": (I.rsi(close, 14), lambda: talib.RSI(c, 14)),
    "rsi_6": (I.rsi(close, 6), lambda: talib.RSI(c, 6)),
    "macd_line": (line, lambda: talib.MACD(c)[0] / c),
    "macd_signal": (line - I.macd_histogram(close) / close, lambda: talib.MACD(c)[1] / c),
    "macd_histogram": (I.macd_histogram(close) / close, lambda: talib.MACD(c)[2] / c),
    "true_range": (I.true_range(high, low, close), lambda: talib.TRANGE(h, l, c)),
    "atr": (I.atr(high, low, close), lambda: talib.ATR(h, l, c)),
    "plus_di": (plus, lambda: talib.PLUS_DI(h, l, c)),
    "minus_di": (minus, lambda: talib.MINUS_DI(h, l, c)),
    "adx": (I.adx(high, low, close), lambda: talib.ADX(h, l, c)),
    "bollinger_upper": (middle + spread, lambda: talib.BBANDS(c, 20, 2, 2)[0]),
    "bollinger_middle": (middle, lambda: talib.BBANDS(c, 20, 2, 2)[1]),
    "bollinger_lower": (middle - spread, lambda: talib.BBANDS(c, 20, 2, 2)[2]),
    "stochastic": (I.stochastic(high, low, close), lambda: talib.STOCH(h, l, c, 14, 3, 0, 3, 0)[0]),
    "sma": (mean(close, 50), lambda: talib.SMA(c, 50)),
    "ema": (ema(close, 50), lambda: talib.EMA(c, 50)),
    "roc": (close / I.lag(close, 10) - 1.0, lambda: talib.ROC(c, 10) / 100),
    "dema": (I.dema(close, 24), lambda: talib.DEMA(c, 24)),
    "tema": (I.tema(close, 14), lambda: talib.TEMA(c, 14)),
    "williams_r": (I.williams_r(high, low, close), lambda: talib.WILLR(h, l, c)),
    "cci": (I.cci(high, low, close, 22), lambda: talib.CCI(h, l, c, 22)),
    "mfi": (I.mfi(high, low, close, volume), lambda: talib.MFI(h, l, c, v)),
    "correlation": (I.correlation(change(log(close)), change(log(high)), 24),
                    lambda: talib.CORREL(np.diff(np.log(c), prepend=np.nan), np.diff(np.log(h), prepend=np.nan), 24)),
    "beta": (I.beta(I.simple_return(close), I.simple_return(high), 24), lambda: talib.BETA(h, c, 24)),
    "typical": (I.typical(high, low, close), lambda: talib.TYPPRICE(h, l, c)),
}


@pytest.fixture(scope="module")
def table():
    "All of them in one pass; beginning at an arbitrary bar number."
    roots = [formula for formula, _ in PAIRS.values()]
    program = load(module_source(roots, [r.lookback for r in roots]))
    X, out = np.full((len(INPUTS), len(c)), np.nan), np.empty((len(c), len(roots)), np.float32)
    X[:5] = o, h, l, c, v
    program.run(np.full(program.state, np.nan), 467_001, 0, X, out, 0, len(c), 0)
    return dict(zip(PAIRS, out.T))


@pytest.mark.parametrize("name", PAIRS)
def test_agrees_with_talib_to_a_millionth(name, table, close_to):
    formula, theirs = PAIRS[name]
    assert close_to(table[name][1_500:], theirs()[1_500:], 1e-6)
    assert np.isnan(table[name][: formula.lookback]).all()


def test_nothing_moved_is_answered_as_talib_does():
    flat = np.full(1_500, 7.0)
    assert talib.RSI(flat, 14)[-1] == 0 and talib.ADX(flat, flat, flat)[-1] == 0 and talib.STOCH(flat, flat, flat)[0][-1] == 0
    assert talib.WILLR(flat, flat, flat)[-1] == 0 and talib.CCI(flat, flat, flat)[-1] == 0 and talib.MFI(flat, flat, flat, flat)[-1] == 0
    roots = [I.rsi(close, 14), I.adx(high, low, close), I.stochastic(high, low, close), I.williams_r(high, low, close),
             I.cci(high, low, close), I.mfi(high, low, close, volume)]
    program = load(module_source(roots, [r.lookback for r in roots]))
    out = np.empty((1_500, len(roots)), np.float32)
    program.run(np.full(program.state, np.nan), 0, 0, np.full((len(INPUTS), 1_500), 7.0), out, 0, 1_500, 0)
    assert (out[-1] == 0).all()


def test_a_scan_beside_a_mean_of_the_same_window_looks_back_once(table):
    assert PAIRS["cci"][0].lookback == 21
    assert table["cci"][21:60] == pytest.approx(talib.CCI(h, l, c, 22)[21:60], rel=1e-5)

"""The peers' 30 indicators at three windows, in our expressions: the same definitions as in their `features_nb.py`."""

from functools import partial

from cryptoalgo.features import indicators as I
from cryptoalgo.features.expressions import Expr, change, ema, highest, kurt, lag, log, lowest, mean, skew, source, std
from cryptoalgo.features.registry import FeatureSet, Registry

WINDOWS = (14, 24, 72)  # bars
REFERENCE = "open_interest"  # the input column in which the returns of the reference coin travel: the list reads no open interest


def formulas(w: int) -> dict[str, Expr]:
    "Name -> formula at one window, in the order of the peers' NAMES."
    h, l, c, v, reference = map(source, ("high", "low", "close", "volume", REFERENCE))
    r = change(log(c))
    line = ema(c, w) - ema(c, 2 * w)
    signal = ema(line, 9)
    middle, two = mean(c, w), 2.0 * std(c, w, ddof=0)
    upper, lower = middle + two, middle - two
    plus, minus = I.directional(h, l, c, w)
    slow_k = I.stochastic(h, l, c, w)
    return {
        "sma": c / middle - 1.0, "ema": c / ema(c, w) - 1.0, "dema": c / I.dema(c, w) - 1.0, "tema": c / I.tema(c, w) - 1.0,
        "rsi": I.rsi(c, w), "macd": line, "macds": signal, "macdh": line - signal,
        "bbu": upper, "bbl": lower, "bbw": (upper - lower) / middle, "bbp": (c - lower) / (upper - lower),
        "atr": I.atr(h, l, c, w), "natr": 100.0 * I.atr(h, l, c, w) / c, "adx": I.adx(h, l, c, w), "pdi": plus, "mdi": minus,
        "stk": slow_k, "std": mean(slow_k, 3), "willr": I.williams_r(h, l, c, w), "roc": 100.0 * (c / lag(c, w) - 1.0),
        "corr": I.correlation(r, reference, w), "cci": I.cci(h, l, c, w), "mfi": I.mfi(h, l, c, v, w),
        "hi": highest(h, w) / c - 1.0, "lo": lowest(l, w) / c - 1.0,
        "vol": std(r, w), "skew": skew(r, w), "kurt": kurt(r, w), "vratio": v / mean(v, w)}


def _as_it_is(formula: Expr, /) -> Expr:
    return formula


def peers_list(windows: tuple[int, ...] = WINDOWS, fused: bool = True) -> FeatureSet:
    "The list, a window's columns side by side as the peers write them: one group, so one fused pass; or a group per window."
    registry = Registry()
    for w in windows:
        for name, formula in formulas(w).items():
            registry.feature(group="peers" if fused else f"peers_{w}", meaning=f"the peers' {name} of {w} bars",
                             name=f"{name}_{w}")(partial(_as_it_is, formula))
    return FeatureSet(registry=registry)

"""Look-backs are derived, equal formulas are one object, and what cannot be meant is refused."""

import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.features import expressions as E

close, high = E.source("close"), E.source("high")


@pytest.mark.parametrize("formula, lookback", [
    (close, 0), (close * 2 + high, 0), (E.lag(close, 7), 7), (E.change(close), 1), (E.mean(close, 20), 19), (E.total(close, 1), 0),
    (E.std(E.change(close), 24), 24), (E.highest(E.lag(close, 3), 10), 12), (E.streak(close > E.lag(close), 5), 5),
    (E.wilder(close, 14), 511), (E.ema(E.ema(close, 12) - E.ema(close, 26), 9), 511 + 127), (E.cusum(close, 24), 23),
    (E.every(2, close), 2), (E.every(4, E.change(close)), 10), (E.every(4, E.wilder(close, 14)), 4 * 513 - 2),
])
def test_lookback_is_derived(formula, lookback):
    assert formula.lookback == lookback


def test_equal_formulas_are_one_object():
    assert E.mean(close, 20) / close is E.mean(E.source("close"), 20) / close
    assert E.mean(close, 20) is not E.mean(close, 21)
    assert (E.every(2, high) > close).inputs == {"high", "close"}


@pytest.mark.parametrize("wrong, message", [
    (lambda: E.source("clsoe"), "did you mean 'close'"), (lambda: E.lag(close, 0), "at least 1"), (lambda: E.mean(close, 2.5), "whole number"),
    (lambda: close / 0, "constant 0"), (lambda: bool(close > 1), "where"), (lambda: 1 < close < 2, "where"),
    (lambda: E.ema(close, 1000), "limit is 4095"), (lambda: E.wilder(close, 400), "limit is 4095"),
    (lambda: E.every(2, E.every(2, close)), "every"), (lambda: E.every(1, close), "at least 2"),
])
def test_what_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        wrong()


def test_hours_are_whole_bars_or_absent():
    assert E.hours(24) == 24
    with E.at_timeframe("15m"):
        assert E.hours(24) == 96
    with E.at_timeframe("4h"):
        assert E.hours(24) == 6
        with pytest.raises(E.Absent, match="1h is no whole number of 4h bars"):
            E.hours(1)
    with pytest.raises(InputError), E.at_timeframe("hourly"):
        pass

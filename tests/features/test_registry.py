"""Declaring, refusing, selecting, and the stream that computes a history and a bar alike."""

import numpy as np
import pandas as pd
import pytest
from feature_market import clean_market

from cryptoalgo.core.errors import InputError
from cryptoalgo.features.expressions import change, every, hours, lag, mean
from cryptoalgo.features.registry import FeatureSet, Registry, segments

BARS, _ = clean_market(300)


@pytest.fixture
def registry():
    "Three features in two groups."
    r = Registry()

    @r.feature(group="fast", meaning="return of {n} hours", name="ret_{n}h", n=(1, 8))
    def ret(close, n):
        return close / lag(close, hours(n)) - 1.0

    @r.feature(group="slow", meaning="mean volume of 30 bars", lookback=40)
    def slow_volume(volume):
        return mean(volume, 30)

    return r


def declare(registry, function, **kw):
    return registry.feature(**{"group": "fast", "meaning": "a test", **kw})(function)


def test_inputs_lookback_and_meaning_are_derived(registry):
    ret, _, slow = registry.select()
    assert (ret.name, ret.inputs, ret.lookback, ret.meaning) == ("ret_1h", ("close",), 1, "return of 1 hours")
    assert slow.lookback == 40  # a longer declaration stands
    assert FeatureSet(("slow",), registry=registry).compute(BARS)["slow_volume"].isna().sum() == 40


def test_a_lookback_shorter_than_what_is_used_is_refused_with_the_difference(registry):
    def four(close):
        return every(4, mean(close, 20))

    with pytest.raises(InputError, match=r"'four': declares a look-back of 60 bars but uses 82 at 1h, 22 more"):
        declare(registry, four, lookback=60)
    assert "four" not in [f.name for f in registry.select()]
    declare(registry, four, lookback=82)


def test_a_declaration_in_bars_is_checked_at_every_timeframe(registry):
    def day(close):
        return lag(close, hours(24))

    declare(registry, day, lookback=24)
    with pytest.raises(InputError, match="uses 96 at 15m, 72 more"):
        registry.select(["day"], "15m")


def test_unknown_parameters_and_taken_names_are_refused(registry):
    def typo(volum):
        return volum

    def ret_1h(close):
        return close

    def close(close):
        return close

    for function, message in ((typo, "did you mean 'volume'"), (ret_1h, "already declared"), (close, "column of the bar")):
        with pytest.raises(InputError, match=message):
            declare(registry, function)


def test_a_cell_that_is_run_again_replaces_its_feature(registry):
    for bars in (3, 5):
        def again(close, bars=bars):
            return change(close, 3)

        namespace: dict = {}
        exec(f"def again(close):\n    return lag(close, {bars})", {"lag": lag}, namespace)
        declare(registry, namespace["again"])
    assert registry.select(["again"])[0].lookback == 5


def test_features_build_on_features(registry):
    def ret_1h_vel(ret_1h):
        return change(ret_1h)

    declare(registry, ret_1h_vel)
    assert registry.select(["ret_1h_vel"])[0].lookback == 2


def test_selection_keeps_the_order_of_groups_and_declarations(registry):
    assert FeatureSet(("slow", "ret_8h"), registry=registry).names == ("ret_8h", "slow_volume")
    assert FeatureSet(registry=registry).names == ("ret_1h", "ret_8h", "slow_volume")
    assert FeatureSet(registry=registry, timeframe="4h").names == ("ret_8h", "slow_volume")
    for names, message in ((("fats",), "did you mean 'fast'"), ((), "none selected")):
        with pytest.raises(InputError, match=message):
            FeatureSet(names, registry=registry).names


def test_the_digest_of_a_group_changes_with_its_code_alone(registry):
    before = FeatureSet(registry=registry).digests

    def another(close):
        return change(close, 4)

    declare(registry, another)
    after = FeatureSet(registry=registry).digests
    assert before["slow"] == after["slow"] and before["fast"] != after["fast"]
    assert FeatureSet(registry=registry).digest != FeatureSet(registry=registry, timeframe="15m").digest


def test_push_takes_the_next_bar_and_restarts_after_a_hole(registry):
    features = FeatureSet(("fast",), registry=registry)
    table, stream = features.compute(BARS), features.stream()
    times, closes = BARS.index.asi8.tolist(), BARS["close"].tolist()
    for t in range(20):
        row = stream.push(times[t], closes[t])
    assert np.array_equal(row, table.iloc[19])
    with pytest.raises(InputError, match="after the last one"):
        stream.push(times[19], closes[19])
    with pytest.raises(InputError, match="read close"):
        stream.push(times[20], closes[20], 1.0)
    assert np.isnan(stream.push(times[22], closes[22])).all()


def test_bars_off_the_grid_unsorted_without_zone_or_columns_are_refused(registry):
    features = FeatureSet(registry=registry)
    for wrong, message in ((BARS.iloc[::-1], "does not come after"), (BARS.iloc[[0, 0]], "does not come after"),
                           (BARS.set_axis(BARS.index + pd.Timedelta("1min")), "UTC grid"), (BARS.tz_localize(None), "zone"),
                           (BARS.drop(columns="volume"), "'volume' is missing; slow_volume")):
        with pytest.raises(InputError, match=message):
            features.compute(wrong)
    with pytest.raises(InputError, match="index is not that of the bars"):
        features.compute(BARS, BARS.iloc[1:])


def test_segments_are_unbroken_stretches():
    assert list(segments(np.array([5, 6, 7, 9, 10, 20]))) == [(0, 3), (3, 5), (5, 6)]
    assert list(segments(np.array([], np.int64))) == []

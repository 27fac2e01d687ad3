"Which labels say true or false, of a direction, of an amount, and of a side that was named beforehand."

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import LabelParams
from cryptoalgo.features.labels import make_labels
from cryptoalgo.models.learners import rows_of
from cryptoalgo.models.samples import Sample, directed, learned, outcomes, refuse_unknown


def bars(n=3000, seed=1):
    rng = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", unit="ms", name="event_time")
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    open_ = np.r_[100, close[:-1]]
    return pd.DataFrame({"open": open_, "high": np.maximum(open_, close) * 1.004, "low": np.minimum(open_, close) * 0.996, "close": close,
                         "volume": 1.0, "available_time": times + pd.Timedelta("1h"), "is_filled": False}, times)


def labels_of(kind):
    return make_labels(bars(), LabelParams(kind=kind, horizon_bars=12, up_sigma=3, down_sigma=3, vol_bars=24))


@pytest.mark.parametrize("kind", ["triple_barrier", "forward_return", "turning_point_return", "direction_vote"])
def test_every_kind_of_label_can_be_learned_and_scored(kind):
    labels = labels_of(kind)
    refuse_unknown(labels)
    at, came = directed(labels), outcomes(labels)
    assert at.size and labels["y"].iloc[at].notna().all() and labels["t_end"].iloc[at].notna().all()
    told = came["y"].notna() & (came["y"] != 0)
    assert np.array_equal(np.flatnonzero(told), at)
    assert ((came["y"] > 0) == (labels["y"] > 0))[told].all()
    assert np.array_equal(learned(labels, "return"), np.flatnonzero(labels["y"].notna()))


def test_a_failed_vote_is_an_answer_and_its_return_is_that_of_its_side():
    labels = labels_of("direction_vote")
    at = directed(labels)
    assert set(labels["side"].iloc[at]) == {-1.0, 1.0} and set(labels["y"].iloc[at]) == {0.0, 1.0}
    assert at.size == ((labels["side"].abs() == 1) & labels["y"].notna()).sum()
    came = outcomes(labels)
    assert np.allclose(came["ret"].iloc[at], (labels["ret"] * labels["side"]).iloc[at])
    right = came["y"] > 0
    assert (came["ret"][right] > 0).all()  # its target lies on its side
    other = labels.assign(side=0.0)
    assert directed(other).size == 0 and outcomes(other).isna().all().all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0, np.nan]), st.sampled_from([-1.0, 0.0, 1.0, np.nan])), min_size=1, max_size=30),
       st.booleans(), st.sampled_from(["direction", "return"]))
def test_a_sample_is_what_row_by_row_looking_finds(cells, with_side, task):
    y, side = map(np.array, zip(*cells))
    n = len(y)
    times = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", unit="ms")
    labels = pd.DataFrame({"y": y, "ret": 0.01, "t_start": times, "t_end": times + pd.Timedelta("1h"), "weight": 1.0 + np.arange(n)}, times)
    if with_side:
        labels["side"] = side
    rows = rows_of(pd.DataFrame({"x": np.arange(n, dtype="float32")}, times))
    sample, want = Sample.of(rows, labels, task), []
    for k in range(n):
        told = not np.isnan(y[k]) and (abs(side[k]) == 1 if with_side else y[k] != 0)
        if told or (task == "return" and not np.isnan(y[k])):
            want.append((k, y[k] if task == "return" else y[k] > 0, told, 1.0 + k))
    assert sample.rows.at.tolist() == [k for k, *_ in want] and sample.target.tolist() == [t for _, t, *_ in want]
    assert sample.told.tolist() == [t for *_, t, _ in want] and sample.weight.tolist() == [w for *_, w in want]
    if task == "return" and want:
        assert sample.balanced().mean() == pytest.approx(1)
    if task == "direction" and 0 < sample.up.sum() < sample.up.size:
        balanced = sample.balanced()
        assert balanced[sample.up].sum() == pytest.approx(balanced[~sample.up].sum()) and balanced.sum() == pytest.approx(len(want))


def test_labels_that_contradict_themselves_are_named_in_one_line():
    labels = labels_of("triple_barrier")
    for value in (np.nan, np.inf):
        spoilt = labels.copy()
        spoilt.iloc[100, 0] = value
        with pytest.raises(InputError, match=re.escape(f"y at {labels.index[100]} is {value} though its end is known")) as e:
            refuse_unknown(spoilt)
        assert "\n" not in str(e.value)

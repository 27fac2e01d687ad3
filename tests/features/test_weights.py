"""Weights of overlapping labels: the book's numbers, and plain sums over an indicator matrix on random spans."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.features.weights import (
    average_uniqueness,
    concurrency,
    draw_probabilities,
    label_spans,
    return_attribution,
    sample_weights,
    sequential_bootstrap,
    signal_weights,
    time_decay,
    uniqueness_weights,
)


@st.composite
def spans(draw):
    n_bars = draw(st.integers(1, 60))
    starts = draw(st.lists(st.integers(0, n_bars - 1), min_size=1, max_size=30))
    ends = [draw(st.integers(s, n_bars - 1)) for s in starts]
    return np.array(starts), np.array(ends), n_bars


def indicator(starts, ends, n_bars):
    "The definition: a matrix of bars × labels with a 1 where a label covers a bar."
    bar = np.arange(n_bars)[:, None]
    return ((bar >= starts) & (bar <= ends)).astype(float)


@settings(max_examples=150, deadline=None)
@given(spans(), st.integers(0, 2**32 - 1))
def test_prefix_sums_equal_the_indicator_matrix(span, seed):
    starts, ends, n_bars = span
    covers = indicator(starts, ends, n_bars)
    alive = covers.sum(axis=1)
    assert (concurrency(*span) == alive).all()
    share = covers / np.maximum(alive, 1)[:, None]
    assert np.allclose(average_uniqueness(*span), share.sum(axis=0) / covers.sum(axis=0), rtol=1e-12)
    returns = np.random.default_rng(seed).normal(size=n_bars)
    raw = np.abs((share * returns[:, None]).sum(axis=0))
    assert np.allclose(return_attribution(returns, starts, ends), raw * raw.size / raw.sum(), atol=1e-9)
    drawn = np.random.default_rng(seed).integers(0, starts.size, 3)
    others = covers[:, drawn].sum(axis=1)[:, None]
    expected = (covers / (1 + others)).sum(axis=0) / covers.sum(axis=0)
    assert np.allclose(draw_probabilities(*span, drawn), expected / expected.sum(), rtol=1e-12)


def of_spans(x):
    "What an entry of spans asks for, by the names of the file. Only what is read is computed."
    starts, ends = np.array(x["spans_inclusive"]).T
    n_bars = x.get("n_bars", len(x.get("prices", ())))
    returns = np.diff(np.log(x["prices"]), prepend=np.nan) if "prices" in x else None
    unique, cells = average_uniqueness(starts, ends, n_bars), ends - starts + 1
    alive = concurrency(starts, ends, n_bars)

    def raw(first):  # before scaling, the plain sum
        return [abs(sum(returns[i] / alive[i] for i in range(s + first, e + 1) if not np.isnan(returns[i]))) for s, e in zip(starts, ends)]

    return {
        "concurrency": lambda: alive, "average_uniqueness": lambda: unique, "mean_of_labels": lambda: unique.mean(),
        "mean_over_cells": lambda: (unique * cells).sum() / cells.sum(),
        "probabilities_before_each_draw": lambda: [
            draw_probabilities(starts, ends, n_bars, x["drawn"][:i]) for i in range(len(x["drawn"]) + 1)],
        "raw_book": lambda: raw(0), "raw_excluding_entry_bar_return": lambda: raw(1),
        "normalised_book": lambda: return_attribution(returns, starts, ends, "include"),
        "normalised_excluding_entry": lambda: return_attribution(returns, starts, ends, "exclude"),
        "decay": lambda: time_decay(unique, x["c"]),
    }


@pytest.mark.parametrize("prefix", ["uniqueness.", "sequential_bootstrap.", "sample_weights."])
def test_reference(prefix, references, close_to):
    "Every number of every entry whose name begins so; one of another form fails."
    for entry in references(prefix):
        known = of_spans(entry["inputs"])
        for key, expected in entry["expected"].items():  # a key that is not known here is a KeyError
            got = known[key]()
            if key == "probabilities_before_each_draw":
                got = got[: len(expected)]
            assert np.shape(got) == np.shape(expected) and close_to(got, expected, entry["tolerance"]), (entry["name"], key)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=50), st.floats(-0.99, 1))
def test_decay_grows_to_one(unique, oldest):
    weights = time_decay(np.array(unique), oldest)
    assert weights[-1] == 1 and (np.diff(weights) >= 0).all() and (weights >= 0).all()
    assert oldest < 1 or (weights == 1).all()


def test_sequential_draws_follow_their_probabilities_and_their_seed():
    starts, ends = np.array([0, 2, 4]), np.array([2, 3, 5])
    draws = np.array([sequential_bootstrap(starts, ends, 6, 2, seed=s) for s in range(4000)])
    second = np.bincount(draws[draws[:, 0] == 1, 1], minlength=3) / (draws[:, 0] == 1).sum()
    assert np.abs(second - np.array([5, 3, 6]) / 14).max() < 0.05
    again = sequential_bootstrap(starts, ends, 6, 50, seed=9)
    assert (again == sequential_bootstrap(starts, ends, 6, 50, seed=9)).all() and set(again) <= {0, 1, 2}


def test_spans_of_labels_are_the_bars_from_entry_to_exit_across_holes():
    hours = np.array([0, 1, 2, 6, 7, 8])  # a hole of three bars
    times = from_ms(hours * 3_600_000)
    hour = pd.Timedelta("1h")
    labels = pd.DataFrame({"t_start": [times[1], times[3]], "t_end": [times[2] + hour, times[3] + hour]}, index=times[[0, 2]])
    starts, ends = label_spans(labels, times)
    assert (starts == [1, 3]).all() and (ends == [2, 3]).all()
    assert uniqueness_weights(labels, times).tolist() == [1.0, 1.0]


def test_every_bar_labelled_has_uniqueness_of_one_over_the_horizon():
    n, horizon = 300, 24
    starts = np.arange(n - horizon)
    unique = average_uniqueness(starts, starts + horizon - 1, n)
    assert np.allclose(unique[horizon:-horizon], 1 / horizon)


def as_labels(starts, ends, n_bars):
    "Spans as a frame of labels, oldest first, and the bars' times."
    order = np.lexsort((ends, starts))
    times = from_ms(np.arange(n_bars + 1) * 3_600_000)
    frame = pd.DataFrame({"t_start": times[starts[order]], "t_end": times[ends[order] + 1]}, index=times[starts[order]])
    return frame[~frame.index.duplicated()], times[:-1]


@settings(max_examples=100, deadline=None)
@given(spans(), st.integers(0, 2**32 - 1), st.floats(0.1, 20), st.floats(-0.9, 1), st.booleans(), st.booleans())
def test_the_weight_of_a_row_is_the_product_of_its_parts_over_their_mean(span, seed, factor, oldest, attributed, marked):
    labels, times = as_labels(*span)
    rng = np.random.default_rng(seed)
    returns, turning = rng.normal(size=len(times)), pd.Series(rng.random(len(times)) < 0.3, times)
    covers = indicator(*label_spans(labels, times), len(times))
    share = covers / np.maximum(covers.sum(axis=1), 1)[:, None]
    product, age = [], 0.0
    unique = share.sum(axis=0) / covers.sum(axis=0)
    for k, (t, u) in enumerate(zip(labels.index, unique)):
        age += u
        fall = 1 - (unique.sum() - age) * ((1 - oldest) / unique.sum() if oldest >= 0 else 1 / ((1 + oldest) * unique.sum()))
        moved = abs((share[:, k] * returns).sum()) if attributed else 1.0
        product.append(u * max(fall, 0) * moved * (factor if marked and turning[t] else 1.0))
    got = sample_weights(labels, times, returns if attributed else None, oldest, turning if marked else None, factor)
    assert got.index.equals(labels.index) and got.name == "weight" and (got >= 0).all()
    assert np.allclose(got, np.array(product) / np.mean(product), rtol=1e-7, atol=1e-9) and np.isclose(got.mean(), 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.floats(0.01, 100), st.integers(0, 5))
def test_a_signal_counts_factor_times_and_all_else_once(marks, factor, more):
    times = from_ms(np.arange(len(marks) + more) * 3_600_000)
    signal = pd.Series([*marks, *[True] * more], times)
    got = signal_weights(pd.DataFrame(index=times[: len(marks)]), signal.sample(frac=1, random_state=0), factor)
    assert got.tolist() == [factor if m else 1.0 for m in marks]
    assert signal_weights(pd.DataFrame(index=times), signal).isin([1.0, 5.0]).all()


BOOK, HOURS = as_labels(np.array([0, 2, 4]), np.array([2, 3, 5]), 6)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: signal_weights(BOOK, pd.Series(True, HOURS), 0.0), "factor = 0"),
    (lambda: signal_weights(BOOK, pd.Series(True, HOURS), np.inf), "factor = inf"),
    (lambda: signal_weights(BOOK, pd.Series(True, HOURS[:3])), "signal: nothing is known of the label at 1970-01-01 04:00"),
    (lambda: sample_weights(BOOK, HOURS, np.ones(5)), "5 log returns for 6 bars"),
    (lambda: sample_weights(BOOK.iloc[:0], HOURS), "0 labels"),
    (lambda: sample_weights(BOOK, HOURS, np.eye(6)[0], -0.9), "leave nothing of any"),
    (lambda: average_uniqueness([0, 4], [2, 9], 6), "label 1 covers bars 4 to 9"),
    (lambda: concurrency([3], [2], 6), "0 <= first <= last < 6"),
    (lambda: time_decay(np.ones(3), -1.0), "oldest = -1"),
    (lambda: return_attribution(np.zeros(4), [0], [2]), "no label's bars move"),
    (lambda: return_attribution(np.ones(4), [0], [2], "both"), "entry_bar = 'both'"),
])
def test_bad_input_names_value_and_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_row_without_a_label_is_refused():
    times = from_ms(np.arange(3) * 3_600_000)
    labels = pd.DataFrame({"t_start": [times[1], pd.NaT], "t_end": [times[2], pd.NaT]}, index=times[:2])
    with pytest.raises(InputError, match="drop the rows without a label"):
        label_spans(labels, times)

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
    sequential_bootstrap,
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


def test_reference_uniqueness(reference, close_to):
    e = reference("uniqueness.spans")
    starts, ends = np.array(e["inputs"]["spans_inclusive"]).T
    n_bars, expected = e["inputs"]["n_bars"], e["expected"]
    alive, unique = concurrency(starts, ends, n_bars), average_uniqueness(starts, ends, n_bars)
    assert alive.tolist() == expected["concurrency"]
    assert close_to(unique, expected["average_uniqueness"], e["tolerance"])
    assert close_to(unique.mean(), expected["mean_of_labels"], e["tolerance"])
    cells = ends - starts + 1
    assert close_to((unique * cells).sum() / cells.sum(), expected["mean_over_cells"], e["tolerance"])


def test_reference_sequential_bootstrap(reference, close_to):
    e = reference("sequential_bootstrap.probabilities")
    starts, ends = np.array(e["inputs"]["spans_inclusive"]).T
    for i, expected in enumerate(e["expected"]["probabilities_before_each_draw"]):
        got = draw_probabilities(starts, ends, e["inputs"]["n_bars"], e["inputs"]["drawn"][:i])
        assert close_to(got, expected, e["tolerance"])


def test_reference_return_attribution(reference, close_to):
    e = reference("sample_weights.return_attribution")
    starts, ends = np.array(e["inputs"]["spans_inclusive"]).T
    returns = np.diff(np.log(e["inputs"]["prices"]), prepend=np.nan)
    for option, key in (("include", "normalised_book"), ("exclude", "normalised_excluding_entry")):
        assert close_to(return_attribution(returns, starts, ends, option), e["expected"][key], e["tolerance"])


def test_reference_uniqueness_and_decay(reference, close_to):
    e = reference("sample_weights.uniqueness_and_decay")
    starts, ends = np.array(e["inputs"]["spans_inclusive"]).T
    unique = average_uniqueness(starts, ends, e["inputs"]["n_bars"])
    assert close_to(unique, e["expected"]["average_uniqueness"], e["tolerance"])
    assert close_to(time_decay(unique, e["inputs"]["c"]), e["expected"]["decay"], e["tolerance"])


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


@pytest.mark.parametrize(("call", "words"), [
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

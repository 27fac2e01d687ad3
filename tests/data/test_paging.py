"""What a venue holds arrives whole, whatever its single answers lose, double or shuffle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import OutsideError
from cryptoalgo.data.paging import Page, Walk, ask, holes, pages, tidy

STEP = 10


def rows(times):
    times = np.asarray(times, dtype="int64")
    return Page(times, np.column_stack([times * 2.0, np.sqrt(times + 1.0)]))


class Venue:
    "Holds rows; an answer may lose, double and shuffle them, is cut at `size`, and may reach beyond its window."

    def __init__(self, held, seed=0, loses=0.0, doubles=0.0, size=10**6, newest_first=False):
        self.held, self.rng, self.loses, self.doubles = np.asarray(held, dtype="int64"), np.random.default_rng(seed), loses, doubles
        self.size, self.newest_first, self.asked = size, newest_first, []

    def __call__(self, start, end):
        self.asked.append((start, end))
        there = self.held[(self.held >= start - STEP) & (self.held < end)]
        there = there[-self.size:] if self.newest_first else there[:self.size]
        there = there[self.rng.random(len(there)) >= self.loses]
        there = np.concatenate([there, there[self.rng.random(len(there)) < self.doubles]])
        return rows(self.rng.permutation(there))


held_times = st.lists(st.integers(0, 199), min_size=1, max_size=120, unique=True).map(lambda xs: np.sort(np.array(xs)) * STEP)


@given(held=held_times, seed=st.integers(0, 10**6), size=st.integers(1, 40), backward=st.booleans(), newest_first=st.booleans(),
       doubles=st.sampled_from([0.0, 0.5]))
@settings(max_examples=150, deadline=None)
def test_a_walk_brings_every_row_once(held, seed, size, backward, newest_first, doubles):
    venue = Venue(held, seed, doubles=doubles, size=size + 1, newest_first=newest_first)
    got = list(pages(venue, Walk(0, 2000, backward), STEP, size))
    joined = np.concatenate([p.times for p in (reversed(got) if backward else got)])
    np.testing.assert_array_equal(joined, held)
    values = np.concatenate([p.values for p in (reversed(got) if backward else got)])
    np.testing.assert_array_equal(values, rows(held).values)


@given(seed=st.integers(0, 10**6), loses=st.floats(0, 0.25))
@settings(max_examples=60, deadline=None)
def test_rows_that_an_answer_lost_are_asked_for_again(seed, loses):
    "A row is lost for good only when three answers in a row bring nothing new: at 25 % and one missing row, .25³."
    held = np.arange(0, 3000, STEP)
    venue = Venue(held, seed, loses)
    page = ask(venue, 0, 3000, STEP)
    assert len(np.setdiff1d(page.times, held)) == 0 and len(held) - len(page.times) <= 2


def test_a_real_hole_is_believed_after_two_vain_questions():
    venue = Venue(np.delete(np.arange(0, 1000, STEP), np.arange(40, 60)))
    assert len(ask(venue, 0, 1000, STEP).times) == 80
    assert venue.asked == [(0, 1000), (391, 600), (391, 600)]


def test_a_page_without_holes_is_asked_for_once():
    venue = Venue(np.arange(0, 5000, STEP))
    assert len(list(pages(venue, Walk(0, 5000), STEP, 100))) == 5 and len(venue.asked) == 5


def test_nothing_is_asked_outside_the_walk():
    venue = Venue(np.arange(0, 5000, STEP))
    for backward in (False, True):
        got = np.concatenate([p.times for p in pages(venue, Walk(1005, 2345, backward), STEP, 7)])
        assert got.min() == 1010 and got.max() == 2340
    assert min(a for a, _ in venue.asked) >= 1005 and max(b for _, b in venue.asked) <= 2345


def test_pages_of_a_backward_walk_keep_the_stored_series_one_piece():
    lowest = 3000
    for page in pages(Venue(np.arange(0, 3000, STEP)), Walk(0, 3000, backward=True), STEP, 37):
        assert page.times[-1] == lowest - STEP
        lowest = page.times[0]
    assert lowest == 0


def test_a_time_with_two_values_is_asked_for_again_and_named_when_it_stays():
    answers = [Page(np.array([0, 10, 10, 20]), np.array([[1.0], [2.0], [2.5], [3.0]])), Page(np.array([10]), np.array([[2.5]]))]
    page = ask(lambda a, b: answers.pop(0), 0, 30, STEP)
    assert page.times.tolist() == [0, 10, 20] and page.values.ravel().tolist() == [1.0, 2.5, 3.0]
    torn = Page(np.array([0, 10, 10]), np.array([[1.0], [2.0], [2.5]]))
    with pytest.raises(OutsideError, match="two different rows"):
        ask(lambda a, b: torn, 0, 20, STEP)


@given(held=held_times)
@settings(max_examples=60, deadline=None)
def test_holes_are_where_rows_are_missing(held):
    "The oracle walks the grid."
    missing = [t for t in range(0, 2000, STEP) if t not in set(held.tolist())]
    covered = [t for a, b in holes(held, 0, 2000, STEP) for t in range(0, 2000, STEP) if a <= t < b]
    assert covered == missing


def test_tidy_keeps_nan_rows_and_drops_equal_doubles():
    answer = Page(np.array([5, 5, 7]), np.array([[1.0, np.nan], [1.0, np.nan], [2.0, 3.0]]))
    page, torn = tidy(answer, 0, 10)
    assert page.times.tolist() == [5, 7] and len(torn) == 0

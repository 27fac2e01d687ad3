"""Every splitter keeps its gap on labels of any length; the published folds are reproduced; errors name the constraint."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.core.ledger import Span as Period
from cryptoalgo.core.params import load_issue, resolve
from cryptoalgo.core.profiles import load_costs
from cryptoalgo.features.splits import (
    CombinatorialPurged,
    Fold,
    PurgedKFold,
    Span,
    WalkForward,
    fold_table,
    holdout_cut,
    spans_of,
    split_indicator,
)
from cryptoalgo.research.series import Experiment

PARAMS = Path(__file__).resolve().parents[2] / "params"
HOUR = 3_600_000
DAY = 24


def rows(n, ends, starts=None):
    "Rows an hour apart; row i's label runs from bar starts[i] (default i) to the close of bar ends[i]."
    starts = np.arange(n) if starts is None else np.asarray(starts)
    return (pd.Series(from_ms(starts * HOUR)), pd.Series(from_ms((np.asarray(ends) + 1) * HOUR)), from_ms(np.arange(n) * HOUR))


@st.composite
def labelled_rows(draw):
    "Rows with holes in time, labels of uneven length from the next bar on, some rows without a label."
    n = draw(st.integers(400, 700))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    opens = np.cumsum(1 + 7 * (rng.random(n) < draw(st.sampled_from([0.0, 0.01])))) * HOUR
    opens[1] = opens[0] + HOUR
    held = rng.integers(1, draw(st.integers(1, 30)) + 1, n) * HOUR
    t_start, t_end = (pd.Series(from_ms(x)) for x in (opens + HOUR, opens + HOUR + held))
    missing = rng.random(n) < draw(st.sampled_from([0.0, 0.05]))
    t_start[missing] = t_end[missing] = pd.NaT
    return t_start, t_end, from_ms(opens)


splitters = st.one_of(
    st.builds(WalkForward, st.sampled_from(["anchored", "sliding"]), st.integers(1, 8), st.integers(1, 5), st.integers(0, 30)),
    st.builds(PurgedKFold, st.integers(2, 6), st.integers(0, 30), st.sampled_from(["strict", "book"])),
    st.integers(3, 6).flatmap(lambda n: st.builds(CombinatorialPurged, st.just(n), st.integers(1, 2), st.integers(0, 30),
                                                  st.sampled_from(["strict", "book"]))),
)


def gaps(splitter):
    "What must lie before and after a test block, in milliseconds; the book's rule tolerates one bar on each side."
    embargo = splitter.embargo_bars * HOUR
    if isinstance(splitter, WalkForward):
        return embargo, None
    slack = HOUR if splitter.rule == "book" else 0
    return -slack, embargo - slack


@settings(max_examples=200, deadline=None)
@given(labelled_rows(), splitters)
def test_no_training_label_shares_a_bar_with_a_test_block_and_the_gap_is_kept(data, splitter):
    t_start, t_end, event_time = data
    opens, starts, ends, known = to_ms(event_time), to_ms(t_start), to_ms(t_end), t_end.notna().to_numpy()
    least_before, least_after = gaps(splitter)
    for fold in splitter.split(*data):
        train = fold.train_rows()
        assert train.size and known[train].all() and not np.intersect1d(train, fold.test_rows()).size
        for a, b in fold.test:
            known_by = max(ends[a:b][known[a:b]].max(initial=0), opens[b - 1] + HOUR)
            before, after = train[train < a], train[train >= b]
            assert (ends[before] <= opens[a] - least_before).all()
            assert not after.size if least_after is None else (starts[after] >= known_by + least_after).all()
        assert fold.gap_before_ms == least_before and fold.gap_after_ms == (least_before if least_after is None else least_after)


@settings(max_examples=100, deadline=None)
@given(labelled_rows(), splitters)
def test_nothing_is_purged_that_need_not_be(data, splitter):
    t_start, t_end, event_time = data
    opens, starts, ends, known = to_ms(event_time), to_ms(t_start), to_ms(t_end), t_end.notna().to_numpy()
    least_before, least_after = gaps(splitter)
    forward = least_after is None
    for fold in splitter.split(*data):
        clear = known.copy()
        for a, b in fold.test:
            known_by = max(ends[a:b][known[a:b]].max(initial=0), opens[b - 1] + HOUR)
            clear &= (ends <= opens[a] - least_before) | (not forward and starts >= known_by + (least_after or 0))
            clear[a:b] = False
            if forward and splitter.mode == "sliding":
                train = opens[fold.train_rows()]
                assert train.max() - train.min() < splitter.min_train_days * DAY * HOUR
                clear &= opens >= train.min()
        assert (fold.train_rows() == np.flatnonzero(clear)).all()


@settings(max_examples=60, deadline=None)
@given(labelled_rows(), splitters)
def test_test_blocks_tile_the_rows(data, splitter):
    folds = splitter.split(*data)
    n = len(data[2])
    tested = np.zeros(n, int)
    for fold in folds:
        tested[fold.test_rows()] += 1
    if isinstance(splitter, WalkForward):
        start = folds[0].test[0].start
        assert (tested[start:] == 1).all() and not tested[:start].any() and len(folds) == splitter.n_folds
        assert data[2][start] - data[2][0] >= pd.Timedelta(days=splitter.min_train_days, hours=splitter.embargo_bars)
    else:
        paths = getattr(splitter, "n_paths", 1)
        assert (tested == paths).all()


def test_each_labels_own_end_decides_and_not_one_horizon_for_all():
    n = 24 * 10
    ends = np.minimum(np.arange(n) + 1, n - 1)
    ends[30] = 150  # one label stays open far longer than the others
    data = rows(n, ends)
    for splitter in (WalkForward("anchored", 4, 2), PurgedKFold(3)):
        for fold in splitter.split(*data):
            start = fold.test[0].start
            assert (30 in fold.train_rows()) == (start > 150) and (start <= 30 or 29 in fold.train_rows())


def test_purge_is_never_silently_nothing():
    n = 24 * 20
    t_start, t_end, event_time = rows(n, np.minimum(np.arange(n) + 24, n - 1))
    for splitter in (WalkForward("anchored", 5, 3), WalkForward("sliding", 5, 3), PurgedKFold(4), CombinatorialPurged(5, 2)):
        for fold in splitter.split(t_start, t_end, event_time):
            touching = [a for a, _ in fold.test if a > 0] + [b for _, b in fold.test if b < n]
            assert touching and not np.isin(touching, fold.train_rows() + 1).any()
            table = fold_table([fold], t_end, event_time)
            assert table["gap_hours"].isna().all() or (table["gap_hours"] >= 0).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))))
def test_every_path_has_every_block_once_and_every_answer_is_used_once(sizes):
    n, k = sizes
    splitter = CombinatorialPurged(n, k)
    folds = splitter.split(*rows(40 * n, np.arange(40 * n)))
    blocks = sorted({span for fold in folds for span in fold.test})
    paths = splitter.paths()
    assert paths.shape == (n, splitter.n_paths) and len(folds) == splitter.n_splits and len(blocks) == n
    assert blocks[0].start == 0 and blocks[-1].stop == 40 * n and all(a.stop == b.start for a, b in zip(blocks, blocks[1:]))
    for path in paths.T:  # the split that answers for a block is one that was tested on it
        assert all(blocks[f] in folds[split].test for f, split in enumerate(path))
    answers = [(split, f) for f, row in enumerate(paths) for split in row]
    assert sorted(answers) == sorted((fold.number, blocks.index(span)) for fold in folds for span in fold.test)


RULES = {"book": "book", "strict_no_shared_bar": "strict"}  # name in the entries: ours


def test_reference_purged_kfold(references):
    for entry in references("purged_kfold."):
        x = entry["inputs"]
        assert entry["expected"].keys() <= RULES.keys()
        for key, want in entry["expected"].items():
            folds = PurgedKFold(x["k"], x["embargo_bars"], RULES[key]).split(*rows(x["n"], x["label_end"]))
            got = [{"test": f.test_rows().tolist(), "train": f.train_rows().tolist()} for f in folds]
            assert got == want, (entry["name"], key)


def test_reference_cpcv(references):
    for entry in references("cpcv."):
        x, expected, name = entry["inputs"], entry["expected"], entry["name"]
        if "pairs" in x:
            sizes = [[s.n_splits, s.n_paths] for s in (CombinatorialPurged(n, k) for n, k in x["pairs"])]
            assert sizes == expected, name
            continue
        splitter = CombinatorialPurged(x["n_folds"], x["n_test_folds"], x["embargo_size"])
        folds = splitter.split(*rows(x["n"], np.arange(x["n"]) + x["purged_size"]))
        got = [{"train": f.train_rows().tolist(), "tests": [list(range(*s)) for s in f.test]} for f in folds]
        assert got == expected["splits"] and len(folds) == splitter.n_splits == expected["n_splits"], name
        paths = splitter.paths()
        assert paths.tolist() == expected["recombined_paths"] and splitter.n_paths == expected["n_paths"], name
        path_ids = [[p for row in paths for p, split in enumerate(row) if split == s] for s in range(splitter.n_splits)]
        assert path_ids == expected["path_ids"], name


def test_the_experiment_demands_an_embargo_as_long_as_the_label_and_the_splitter_does_not():
    x = resolve(PARAMS, load_issue(PARAMS / "issues" / "001-demo.yaml"), "BTC", ["splits.embargo_bars=23"])
    with pytest.raises(InputError, match="embargo_bars = 23 for BTC: an embargo is at least the label's horizon; set it to 36"):
        Experiment("BTC", "1h", x, load_costs(PARAMS / "venues.yaml", x.costs), Period(0, 0))
    assert WalkForward("anchored", 4, 2, 0).split(*PLAIN)


@given(st.lists(st.booleans(), max_size=60))
def test_spans_are_the_runs_of_a_mask(mask):
    fold = Fold(0, spans_of(np.array(mask, bool)), (), 0, 0)
    assert fold.train_rows().tolist() == [i for i, keep in enumerate(mask) if keep]
    assert all(a.stop < b.start for a, b in zip(fold.train, fold.train[1:]))


def test_holdout_is_cut_at_its_first_moment():
    times = from_ms(np.arange(24 * 30) * HOUR)
    begin, end = times[24 * 20], times[24 * 25]
    cut = holdout_cut(times, (begin, end))
    assert cut.research == (0, 24 * 20) and cut.holdout == (24 * 20, 24 * 25)
    quarters = from_ms(np.arange(24 * 30 * 4) * HOUR // 4)
    assert quarters[holdout_cut(quarters, (begin, end)).holdout.start] == begin


N = 24 * 10
PLAIN = rows(N, np.minimum(np.arange(N) + 5, N - 1))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: WalkForward("anchored", 10, 3).split(*PLAIN), "10.0 days of bars: 10 days of training.*shorten min_train_days"),
    (lambda: WalkForward("anchored", 30, 3).split(*PLAIN), "leave 0.0 days for 3 test blocks"),
    (lambda: WalkForward("slidng", 3, 3), "did you mean 'sliding'"),
    (lambda: WalkForward("sliding", 0, 3), "min_train_days = 0"),
    (lambda: WalkForward("sliding", 3, 0), "n_folds = 0"),
    (lambda: WalkForward("sliding", 3, 3, -2), "embargo_bars = -2: an embargo cannot be shorter than nothing"),
    (lambda: PurgedKFold(1), "n_folds = 1"),
    (lambda: PurgedKFold(4, rule="loose"), "rule = 'loose'"),
    (lambda: PurgedKFold(2, 500).split(*PLAIN), "fold 0: no training label is left"),
    (lambda: PurgedKFold(N + 1).split(*PLAIN), "241 blocks need a row each"),
    (lambda: CombinatorialPurged(4, 4), "nothing is left to train on"),
    (lambda: PurgedKFold(4).split(PLAIN[0], PLAIN[1], PLAIN[2][::-1]), "must grow from row to row"),
    (lambda: PurgedKFold(4).split(PLAIN[0], PLAIN[1][:-1], PLAIN[2]), "equal length"),
    (lambda: PurgedKFold(4).split(PLAIN[1], PLAIN[0], PLAIN[2]), "event_time <= t_start < t_end"),
    (lambda: PurgedKFold(4).split(pd.Series([pd.NaT] * N).dt.tz_localize("UTC"), PLAIN[1], PLAIN[2]), "no row has a label"),
    (lambda: holdout_cut(PLAIN[2], (PLAIN[2][0], PLAIN[2][5])), "leave none before it to train on"),
    (lambda: holdout_cut(PLAIN[2], (pd.Timestamp("2030", tz="UTC"), pd.Timestamp("2031", tz="UTC"))), "none inside it"),
    (lambda: holdout_cut(PLAIN[2], (pd.Timestamp("2030"), pd.Timestamp("2031"))), "two UTC times"),
])
def test_bad_input_names_constraint_value_and_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_block_inside_a_hole_is_named():
    hours = np.r_[np.arange(24 * 4), np.arange(24 * 60, 24 * 62)]
    opens = hours * HOUR
    t_start, t_end = pd.Series(from_ms(opens)), pd.Series(from_ms(opens + HOUR))
    with pytest.raises(InputError, match="fold 1: no bar between .* a hole in the data"):
        WalkForward("anchored", 3, 10).split(t_start, t_end, from_ms(opens))


@settings(max_examples=60, deadline=None)
@given(labelled_rows(), splitters, st.integers(0, 40))
def test_the_indicator_says_of_each_row_what_the_folds_do_with_it(data, splitter, held_out):
    t_start, t_end, event_time = data
    used = len(event_time) - held_out
    folds = splitter.split(t_start[:used], t_end[:used], event_time[:used])
    holdout = Span(used, len(event_time)) if held_out else None
    for chosen in ([f] for f in folds) if isinstance(splitter, CombinatorialPurged) else (folds, folds[-1:]):
        trained, tested = ([set(getattr(f, name)().tolist()) for f in chosen] for name in ("train_rows", "test_rows"))
        expected = ["holdout" if row >= used else
                    next((f"test {f.number}" for f, rows_ in zip(chosen, tested) if row in rows_),
                         "train" if any(row in rows_ for rows_ in trained) else "gap") for row in range(len(event_time))]
        got = split_indicator(event_time, chosen, holdout)
        assert got.tolist() == expected and got.name == "split" and got.index.equals(event_time)


@pytest.mark.parametrize(("folds", "holdout", "words"), [
    ([Fold(0, (), (Span(2, 5),), 0, 0), Fold(1, (), (Span(4, 6),), 0, 0)], None, "row 4 .*folds 0 and 1 both test it"),
    ([Fold(0, (Span(0, 3),), (Span(3, 5),), 0, 0)], Span(4, 9), "row 4 .*held out, and 'test 0' too"),
    ([Fold(0, (Span(0, 3),), (Span(8, 12),), 0, 0)], None, "fold 0: it has rows beyond the 10"),
])
def test_a_row_of_two_uses_is_refused(folds, holdout, words):
    with pytest.raises(InputError, match=words):
        split_indicator(from_ms(np.arange(10) * HOUR), folds, holdout)

"""Studies: the same trials on one worker or two, killed or not; other people's files are left alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import SearchParams
from cryptoalgo.research.study import count_trials, draw, is_beaten, is_flat, open_study

from .slow_study import P, SPACE, search

BUDGET = 30


def told(url: str) -> list[tuple]:
    return [(t.number, t.state.name, t.params, t.value, t.intermediate_values, t.user_attrs) for t in open_study(url, "slow", "dataset").get_trials()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[tuple]:
    "The study that nothing interrupted, by one worker."
    url = f"sqlite:///{tmp_path_factory.mktemp('study')}/optuna.db"
    assert search(url, BUDGET, workers=1) == "trials"
    return told(url)


def test_two_workers_ask_and_answer_the_same(whole, tmp_path):
    search(f"sqlite:///{tmp_path}/optuna.db", BUDGET, workers=2)
    assert told(f"sqlite:///{tmp_path}/optuna.db") == whole
    assert {state for _, state, *_ in whole} == {"COMPLETE", "PRUNED", "FAIL"}


def test_a_smaller_budget_is_the_beginning_of_a_larger_one(whole, tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    for budget in (3, 10, 11, BUDGET):
        search(url, budget)
        assert told(url) == whole[:budget]


def test_killed_three_times_and_no_trial_is_lost_or_doubled(whole, tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    for wanted in (2, 9, 17):
        process = subprocess.Popen([sys.executable, "-m", "tests.research.slow_study", url, str(BUDGET), "0.05"], cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + 60
        while count_trials(url) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert wanted <= count_trials(url) < BUDGET
    assert search(url, BUDGET) == "trials"
    assert told(url) == whole


def test_another_seed_is_another_search(whole, tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    search(url, 8, seed=4)
    assert [t[2] for t in told(url)] != [t[2] for t in whole[:8]]


def test_the_sampler_learns(whole):
    "After its random start it does better than at random; by far, on so plain a hill."
    values = [v for _, state, _, v, *_ in whole if state == "COMPLETE"]
    assert max(values) > 0.0 and np.mean(values[-5:]) > np.mean(values[:5])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pruned_means_below_the_median_of_finished_rivals_at_that_fold(data):
    n = data.draw(st.integers(0, 8))
    folds = data.draw(st.integers(1, 4))
    number = st.floats(-5, 5, allow_nan=False)
    rivals = tuple(tuple(data.draw(st.lists(number, min_size=folds, max_size=folds))) for _ in range(n))
    steps = data.draw(st.lists(number, min_size=1, max_size=folds))
    p = SearchParams(startup_trials=3, warmup_folds=1)
    k = len(steps) - 1
    wanted = n >= 3 and k >= 1 and max(steps) < np.median([r[k] for r in rivals])
    assert is_beaten(steps, rivals, p) == wanted


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-5, 5)), max_size=60), st.integers(1, 80), st.integers(1, 20), st.integers(0, 20))
def test_a_plateau_counts_only_after_two_fifths_and_the_warm_up(values, budget, patience, warmup):
    p = SearchParams(patience=patience, warmup=warmup, min_delta=0.1)
    best, since = float("-inf"), 0
    for v in values:
        since += 1
        if v is not None and v > best + 0.1:
            best, since = v, 0
    wanted = len(values) >= 0.4 * budget and len(values) >= warmup and (since if np.isfinite(best) else len(values)) > patience
    assert is_flat(values, budget, p) == wanted


def test_draws_depend_on_the_trials_before_the_batch_alone(whole, tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    search(url, BUDGET)
    before = open_study(url, "slow", "dataset").get_trials()[:12]
    whole_batch = draw(before, SPACE, 4, 3, P)
    assert [d.values for d in whole_batch] == [t[2] for t in whole[12:16]]
    assert [d.number for d in whole_batch] == [12, 13, 14, 15]


@pytest.mark.parametrize("content", [b"", b"not a database " * 200, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file_is_refused_in_one_line_and_left_as_it_is(content, tmp_path):
    file = tmp_path / "optuna.db"
    file.write_bytes(content)
    if not content:
        open_study(f"sqlite:///{file}", "slow", "dataset")  # an empty file is an empty database
        return
    with pytest.raises(InputError, match="optuna.db.*--fresh") as e:
        open_study(f"sqlite:///{file}", "slow", "dataset")
    assert "\n" not in str(e.value) and file.read_bytes() == content


def test_somebody_elses_study_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    optuna.create_study(storage=url, study_name="mine").add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(InputError, match="another dataset"):
        open_study(url, "slow", "dataset")

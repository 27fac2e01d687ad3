"""The sequence model: what it promises of windows, bits, files and ONNX, and what becomes of a fit without memory or numbers.
On the CPU, sizes tiny; without PyTorch all of it is skipped, in CI that is a failure."""

import hashlib
import json
import logging
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import FitError, InputError
from cryptoalgo.core.sections import ModelParams, SequenceParams
from cryptoalgo.features.splits import WalkForward
from cryptoalgo.models.encoder import FLOOR, whole
from cryptoalgo.models.estimators import Model
from cryptoalgo.models.learners import Rows
from cryptoalgo.models.sequence import LAST_PART, Attention, split_window, within_memory
from cryptoalgo.models.sequence_preflight import sequence_preflight
from cryptoalgo.models.training import walk_forward

BARS, LAG = 8, 5
TINY = SequenceParams(encoder_bars=BARS, hidden=16, heads=2, dropout=0.1, batch=64, epochs=4, learning_rate=5e-3)
BASE = {"name": "attention", "task": "return", "n_estimators": 1, "max_depth": 1, "num_leaves": 2, "learning_rate": 0.1, "min_child_samples": 1,
        "lambda_l1": 0, "lambda_l2": 0, "max_bin": 15, "calibration": "platt", "calibration_folds": 2, "min_rows": 400, "min_class_rows": 15,
        "min_auc": 0.0}
NAMES = ("mom_24", "rsi_14", "oi_chg")


def params_of(task="return", **sequence):
    return ModelParams(**{**BASE, "task": task, "sequence": TINY.model_copy(update=sequence)})


def market(n=1500, seed=3):
    "What follows a bar depends on how far the first feature came in five bars, and on chance of the same size."
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((n, 3)).astype("float32")
    matrix[rng.random(n) < 0.1, 2] = np.nan
    secret = matrix[:, 0] - np.r_[np.zeros(LAG), matrix[:-LAG, 0]]
    return Rows(matrix, NAMES, np.arange(n)), 0.002 * (secret + rng.standard_normal(n))


def fitted(params, seed=1, n=1500, until=1000):
    rows, y = market(n)
    part = rows.take(np.arange(until))
    return Attention(params, seed).fit(part, y[:until], np.ones(until))


def hashes(learner):
    return {name: hashlib.sha256(content).hexdigest() for name, content in learner.files().items()}


def hashes_of_a_fit(seed):
    "At the top of a module, so that a spawned process finds it."
    return hashes(fitted(params_of(epochs=2), seed))


@pytest.fixture(scope="module")
def forecaster(deep):
    return fitted(params_of(epochs=12, dropout=0.0))


@pytest.fixture(scope="module")
def director(deep):
    return fitted(params_of("direction"))


# ── without PyTorch

def test_no_module_of_the_models_imports_torch():
    code = ("import importlib, pkgutil, sys, cryptoalgo.models as m\n"
            "for x in pkgutil.iter_modules(m.__path__): importlib.import_module('cryptoalgo.models.' + x.name)\n"
            "sys.exit('torch' in sys.modules or 'cryptoalgo.models.sequence' not in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    rows, y = market(200)
    with pytest.raises(InputError, match=r'pip install "cryptoalgo\[deep\]"'):
        Attention(params_of(), 1).fit(rows, y, np.ones(200))
    frame = pd.DataFrame(rows.matrix, pd.date_range("2024-01-01", periods=200, freq="h", tz="UTC"), NAMES)
    (reason,) = sequence_preflight(frame, params_of(), 5)
    assert 'pip install "cryptoalgo[deep]"' in reason


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 9))
def test_a_row_has_a_window_when_every_bar_of_it_has_a_value(seed, n, bars):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((n, 3)).astype("float32")
    matrix[rng.random((n, 3)) < 0.5] = np.nan
    at = np.flatnonzero(rng.random(n) < 0.7)
    slowly = [t - bars + 1 >= 0 and all(any(np.isfinite(v) for v in matrix[k]) for k in range(t - bars + 1, t + 1)) for t in at]
    assert whole(Rows(matrix, NAMES, at), bars).tolist() == slowly


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(60, 400), st.integers(1, 30))
def test_no_label_that_is_learned_from_ends_where_stopping_is_decided(seed, n, gap):
    at = np.sort(np.random.default_rng(seed).choice(3 * n, n, replace=False))
    try:
        learn, last = split_window(at, gap)
    except FitError:
        assert (at < at[-round(LAST_PART * n)] - gap).sum() < FLOOR
        return
    assert last.tolist() == list(range(n - round(0.15 / 0.85 * n), n))
    assert learn.size >= FLOOR and at[learn].max() + gap < at[last[0]]
    others = np.setdiff1d(np.arange(n), np.r_[learn, last])
    assert (at[others] + gap >= at[last[0]]).all()  # nothing more is lost than the gap


@pytest.mark.parametrize("wrong, words", [
    ({"hidden": 30, "heads": 4}, "hidden = 30: not a multiple of heads = 4; take 28"),
    ({"quantiles": (0.1, 0.9)}, "hold 0.5"), ({"quantiles": (0.5, 0.1)}, "ascend"), ({"quantiles": (0.0, 0.5)}, "between 0 and 1"),
    ({"quantiles": (0.5, 0.5)}, "ascend")])
def test_numbers_that_make_no_network_are_refused(wrong, words):
    rows, y = market(200)
    with pytest.raises(InputError, match=words):
        Attention(params_of(**wrong), 1).fit(rows, y, np.ones(200))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_unknown_target_is_refused(value):
    rows, y = market(200)
    y[77] = value
    with pytest.raises(InputError, match=f"target number 77 is {value}"):
        Attention(params_of(), 1).fit(rows, y, np.ones(200))


# ── what it learns

def test_a_secret_of_the_past_is_found_on_later_bars(forecaster):
    rows, y = market()
    later = rows.take(np.arange(1000, 1500))
    found = forecaster.margin(later)
    now = np.corrcoef(rows.matrix[1000:, 0], y[1000:])[0, 1]
    assert np.corrcoef(found, y[1000:])[0, 1] > max(0.7, now + 0.1)  # the secret itself has .83, the bar alone .6
    assert forecaster.importance().argmax() == 0 and (forecaster.importance() > 0).all()


def test_a_direction_is_found_and_its_log_odds_mean_it(director):
    rows, y = market()
    later = rows.take(np.arange(1000, 1500))
    margin, up = director.margin(later), y[1000:] > 0
    assert director.forecast(later).shape == (500, 1)
    assert np.mean((margin > 0) == up) > 0.7
    sure = np.abs(margin) > 1
    assert sure.sum() > 100 and np.mean((margin > 0) == up) + 0.02 < np.mean((margin[sure] > 0) == up[sure])


def test_plus_and_minus_one_are_true_and_false(deep, director):
    rows, y = market()
    other = Attention(director.params, 1).fit(rows.take(np.arange(1000)), np.sign(y[:1000]), np.ones(1000))
    assert other.files() == director.files()


def test_quantiles_ascend_and_cover_what_they_say(forecaster):
    rows, y = market()
    fan, q = forecaster.forecast(rows.take(np.arange(1000, 1500))), forecaster.params.sequence.quantiles
    assert (np.diff(fan, axis=1) >= 0).all()
    assert np.array_equal(fan[:, 3], forecaster.margin(rows.take(np.arange(1000, 1500))))
    for k, level in enumerate(q):  # a binomial share, and as much again for what 1,000 rows cannot teach
        assert abs(np.mean(y[1000:] <= fan[:, k]) - level) < 0.01 + 4 * np.sqrt(level * (1 - level) / 500)


def test_weights_weigh(deep):
    "Rows of weight next to nothing teach nothing: the sign that they would teach is not learned."
    rows, y = market()
    odd = np.arange(1000) % 2 == 1
    target, weight = np.where(odd, -y[:1000], y[:1000]), np.where(odd, 1e-6, 1.0)
    found = Attention(params_of(epochs=8), 1).fit(rows.take(np.arange(1000)), target, weight).margin(rows.take(np.arange(1000, 1500)))
    assert np.corrcoef(found, y[1000:])[0, 1] > 0.5


def test_a_feature_that_is_empty_or_constant_does_no_harm(deep):
    rows, y = market(600)
    matrix = rows.matrix.copy()
    matrix[:, 1], matrix[:, 2] = np.nan, 0.1
    learner = Attention(params_of(epochs=1), 1).fit(Rows(matrix, NAMES, rows.at), y, np.ones(600))
    assert np.isfinite(learner.margin(Rows(matrix, NAMES, rows.at))[BARS - 1:]).all()
    assert learner.importance()[1:].tolist() == [0.0, 0.0]
    assert np.isfinite(learner.margin(Rows(np.full_like(matrix, 1e30), NAMES, rows.at))[BARS - 1:]).all()


def test_missing_is_not_the_mean(forecaster):
    rows, _ = market()
    matrix = rows.matrix.copy()
    matrix[:, 2] = np.nan
    missing = forecaster.margin(Rows(matrix, NAMES, np.arange(100, 130)))
    matrix[:, 2] = forecaster.weights_["mean"][2].item()
    assert (missing != forecaster.margin(Rows(matrix, NAMES, np.arange(100, 130)))).all()


# ── scaler, windows and time

def test_the_scaler_has_seen_the_rows_that_are_learned_from_and_no_others(deep):
    rows, y = market(600)
    learn, _ = split_window(np.arange(BARS - 1, 600), BARS)
    x = rows.matrix[learn + BARS - 1].astype("float64")
    learner = Attention(params_of(epochs=1), 1).fit(rows, y, np.ones(600))
    np.testing.assert_allclose(learner.weights_["mean"].numpy(), np.nanmean(x, axis=0), rtol=1e-6)
    np.testing.assert_allclose(learner.weights_["scale"].numpy(), np.nanstd(x, axis=0), rtol=1e-6)
    np.testing.assert_allclose(learner.weights_["shift"].item(), y[learn + BARS - 1].mean(), rtol=1e-6)


@pytest.mark.parametrize("who", ["forecaster", "director"])
def test_the_first_answer_needs_a_whole_window_and_a_hole_silences_those_that_span_it(who, request):
    learner, (rows, _) = request.getfixturevalue(who), market(300)
    matrix = rows.matrix.copy()
    matrix[100] = np.nan
    silent = np.isnan(learner.margin(Rows(matrix, NAMES, rows.at)))
    assert np.flatnonzero(silent).tolist() == [*range(BARS - 1), *range(100, 100 + BARS)]
    assert np.isnan(learner.forecast(Rows(matrix, NAMES, np.arange(5)))).all()
    assert learner.margin(Rows(matrix, NAMES, np.arange(0))).shape == (0,)


@pytest.mark.parametrize("who", ["forecaster", "director"])
def test_an_answer_depends_on_its_own_window_alone_bit_for_bit(who, request):
    learner, (rows, _) = request.getfixturevalue(who), market()
    answers = learner.forecast(rows)
    for t in (BARS - 1, 63, 700, 1499):
        alone = Rows(rows.matrix[t - BARS + 1:t + 1], NAMES, np.array([BARS - 1]))
        assert np.array_equal(learner.forecast(alone)[0], answers[t])
    changed = rows.matrix.copy()
    changed[701:] = np.random.default_rng(1).standard_normal(changed[701:].shape) * 100
    assert np.array_equal(learner.forecast(Rows(changed, NAMES, rows.at))[:701], answers[:701], equal_nan=True)
    for at in (np.arange(17, 40), np.arange(500, 1333), np.array([9, 800, 1400])):
        assert np.array_equal(learner.forecast(rows.take(at)), answers[at])


def test_nothing_after_the_last_row_moves_a_fit(deep):
    rows, y = market()
    changed = rows.matrix.copy()
    changed[1000:] = 1e6
    part = Rows(changed, NAMES, np.arange(1000))
    assert hashes(Attention(params_of(epochs=2), 1).fit(part, y[:1000], np.ones(1000))) == hashes_of_a_fit(1)


# ── the same bytes

def test_same_seed_same_bytes_in_other_processes_and_beside_them(deep):
    here = [hashes_of_a_fit(1), hashes_of_a_fit(2)]
    assert here[0] != here[1]
    deep.manual_seed(99)
    deep.rand(7)
    assert hashes_of_a_fit(1) == here[0]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(hashes_of_a_fit, [1, 2]) == here


def test_threads_of_one_process_do_not_disturb_each_other(deep):
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(hashes_of_a_fit, [1, 2, 1])) == [hashes_of_a_fit(seed) for seed in (1, 2, 1)]


def test_a_fit_puts_back_what_it_found(deep):
    deep.manual_seed(5)
    expected, before = deep.rand(3), (deep.get_num_threads(), deep.are_deterministic_algorithms_enabled())
    deep.manual_seed(5)
    learner = hashes_of_a_fit(1)
    with pytest.raises(FitError):
        fitted(params_of(), n=30, until=30)
    assert deep.equal(deep.rand(3), expected) and learner
    assert (deep.get_num_threads(), deep.are_deterministic_algorithms_enabled()) == before


# ── accidents

@pytest.fixture
def before_each_pass(deep):
    "`before_each_pass(f)` calls `f(input)` before any network's forward pass; undone afterwards."
    from torch.nn.modules.module import register_module_forward_pre_hook

    hooks = []

    def register(f):
        hooks.append(register_module_forward_pre_hook(lambda module, given: f(given[0]) if type(module).__name__ == "Encoder" else None))

    yield register
    for hook in hooks:
        hook.remove()


def scarce(limit, error):
    def look(window):
        if window.shape[0] > limit:
            raise error(window.shape[0])
    return look


ERRORS = {
    "cuda": lambda n: __import__("torch").OutOfMemoryError(f"CUDA out of memory. Tried to allocate {n} MiB"),
    "plain": lambda n: RuntimeError("CUDA error: out of memory"),
    "cpu": lambda n: RuntimeError(f"[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate {n} bytes"),
    "python": lambda n: MemoryError(n),
}


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_halves_the_batch_and_goes_on(error, before_each_pass, caplog):
    before_each_pass(scarce(70, ERRORS[error]))
    with caplog.at_level(logging.WARNING):
        learner = fitted(params_of(batch=256, epochs=3))
    assert learner.batch_ == 64 and len(learner.losses_) == 3
    assert [r.getMessage() for r in caplog.records] == ["out of memory with 256 windows at once: going on with 128",
                                                        "out of memory with 128 windows at once: going on with 64"]


def test_a_fit_that_ran_short_is_the_fit_with_the_smaller_batch(before_each_pass):
    "Nothing of a step that failed is left in the weights, and no row is passed over."
    calm = fitted(params_of(batch=64, epochs=2, dropout=0.0))
    before_each_pass(scarce(64, ERRORS["cuda"]))
    short = fitted(params_of(batch=256, epochs=2, dropout=0.0))
    assert all(np.array_equal(short.weights_[name], value) for name, value in calm.weights_.items())
    assert short.losses_ == calm.losses_


@pytest.mark.parametrize("batch, limit, least, steps", [(256, 31, 32, 3), (40, 31, 32, 1), (1024, 100, 128, 3), (32, 31, 32, 0)])
def test_memory_that_never_suffices_ends_the_fit(batch, limit, least, steps, before_each_pass, caplog):
    seen = []
    before_each_pass(lambda window: seen.append(window.shape[0]))
    before_each_pass(scarce(limit, ERRORS["cuda"]))
    with pytest.raises(FitError, match="out of memory"), caplog.at_level(logging.WARNING):
        fitted(params_of(batch=batch), n=2000, until=2000)
    assert seen[-1] == least and len(caplog.records) == steps  # three tries, never below the floor


def test_what_pytorch_says_without_memory_is_understood(deep):
    with pytest.raises(FitError, match="out of memory"), within_memory():
        deep.empty(1 << 50)


def test_another_error_is_not_taken_for_want_of_memory(before_each_pass):
    before_each_pass(scarce(0, lambda n: RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fitted(params_of())


def test_a_loss_of_nan_ends_the_fit_with_a_reason(deep, monkeypatch):
    import cryptoalgo.models.sequence as room

    steps, loss_of = [], room.loss_of

    def ill(net, params, answer, y):
        steps.append(1)
        return loss_of(net, params, answer, y) * (float("nan") if len(steps) == 5 else 1)

    monkeypatch.setattr(room, "loss_of", ill)
    with pytest.raises(FitError, match="loss became nan.*learning_rate"):
        fitted(params_of())
    assert len(steps) == 5
    monkeypatch.undo()
    with pytest.raises(FitError, match="loss became (nan|inf)"):  # no hand in it
        fitted(params_of(learning_rate=1e30))


def test_too_few_rows_are_an_outcome(deep):
    with pytest.raises(FitError, match="too few"):
        fitted(params_of(), n=45, until=45)
    with pytest.raises(FitError, match="too few"):
        rows, y = market(400)
        Attention(params_of(), 1).fit(rows, y, np.ones(400), label_bars=390)


def test_it_stops_when_the_last_part_gains_no_more_and_keeps_the_best(deep):
    learner = fitted(params_of(epochs=60, patience=2, learning_rate=0.02))
    last = [b for _, b in learner.losses_]
    assert len(last) < 60
    best = next(k for k, loss in enumerate(last) if loss == min(last[:-2]))
    assert len(last) - 1 - best == 2 and min(last[best + 1:]) > last[best] - 1e-4
    short = fitted(params_of(epochs=best + 1, patience=2, learning_rate=0.02))
    assert all(np.array_equal(short.weights_[name], value) for name, value in learner.weights_.items())


# ── files

@pytest.mark.parametrize("who", ["forecaster", "director"])
def test_its_files_are_the_whole_learner(who, request):
    learner, (rows, _) = request.getfixturevalue(who), market()
    files = learner.files()
    assert set(files) == {"model.pt", "attention.json"}
    again = Attention.from_files(files, learner.params, learner.seed)
    assert np.array_equal(again.forecast(rows), learner.forecast(rows), equal_nan=True)
    assert np.array_equal(again.importance(), learner.importance())
    assert again.files() == files
    between = multiprocessing.get_context("spawn").Queue()  # as from a worker to its parent, never to disk
    between.put(learner)
    assert between.get(timeout=60).files() == files
    assert list(learner.stages(rows)) == [] and learner.cut(rows, rows.at) is rows


def test_a_changed_file_is_refused_and_nothing_in_it_is_run(forecaster, tmp_path):
    files, params = forecaster.files(), forecaster.params
    middle = len(files["model.pt"]) // 2
    bent = bytes([*files["model.pt"][:middle], files["model.pt"][middle] ^ 1, *files["model.pt"][middle + 1:]])
    with pytest.raises(InputError, match=r"model\.pt: its sha256"):
        Attention.from_files({**files, "model.pt": bent}, params, 1)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    import torch

    torch.save({"embed.weight": Trap()}, tmp_path / "trap.pt")
    trap = (tmp_path / "trap.pt").read_bytes()
    about = json.loads(files["attention.json"]) | {"sha256": hashlib.sha256(trap).hexdigest()}
    with pytest.raises(InputError, match="not an attention encoder"):
        Attention.from_files({"model.pt": trap, "attention.json": json.dumps(about).encode()}, params, 1)
    assert not (tmp_path / "sprung").exists()
    for broken in ({"model.pt": files["model.pt"]}, {**files, "attention.json": b"{"}, {**files, "attention.json": b"[]"}):
        with pytest.raises(InputError, match="not an attention encoder"):
            Attention.from_files(broken, params, 1)
    with pytest.raises(InputError, match="not an attention encoder of these parameters"):
        Attention.from_files(files, params_of(hidden=32), 1)


@pytest.mark.parametrize("who", ["forecaster", "director"])
def test_onnx_answers_as_torch_does(who, request):
    learner, (rows, _) = request.getfixturevalue(who), market()
    import onnxruntime

    graph = learner.onnx()
    assert b".py" not in graph and (who == "forecaster" or graph == learner.onnx())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.type == "tensor(float)" and given.shape[1:] == [BARS, 3]
    matrix = rows.matrix.copy()
    matrix[200], matrix[300:320, 0], matrix[400, 1] = 1e20, np.nan, -1e-38
    at = np.arange(BARS - 1, 1500)
    (answers,) = session.run(None, {"window": matrix[at[:, None] + np.arange(1 - BARS, 1)]})
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, learner.forecast(Rows(matrix, NAMES, at)), rtol=1e-5, atol=1e-5)
    (one,) = session.run(None, {"window": matrix[None, :BARS]})
    np.testing.assert_allclose(one, answers[:1], atol=1e-6)


# ── as a model

@pytest.fixture
def small(params):
    return lambda task="direction", **changes: params(name="attention", task=task, min_auc=0.0, calibration_folds=2, sequence=SequenceParams(
        encoder_bars=BARS, hidden=16, heads=2, batch=64, epochs=3, learning_rate=5e-3), **changes)


@pytest.mark.parametrize("task", ["direction", "return"])
def test_a_model_of_it_answers_is_saved_and_read_back(task, deep, small, rows, tmp_path):
    features, labels = rows(1500, seed=4, skill=3.0)  # a plain edge, that 380 later rows cannot hide
    model = Model(small(task), 3).fit(features[:1000], labels[:1000])
    said = model.answers(features)
    assert model.refusal_ is None and model.validation_.low > 0.5
    assert np.flatnonzero(np.isnan(said.prob)).tolist() == list(range(BARS - 1))
    up, later = labels["ret"].to_numpy() > 0, np.arange(1100, 1480)
    assert np.mean((said.prob[later] > np.nanmedian(said.prob)) == up[later]) > 0.6
    assert np.isfinite(said.yhat[later]).all() == (task == "return")
    again = Model.load(model.save(tmp_path))
    assert again.model_id_ == model.model_id_ and np.array_equal(again.answers(features), said, equal_nan=True)
    held = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(held[:-1])
    with pytest.raises(InputError, match=r"model\.pt"):
        Model.load(tmp_path)


def test_a_walk_is_the_same_for_one_worker_and_two(deep, small, rows):
    features, labels = rows(1500, seed=4)
    folds = WalkForward("anchored", 25, 2, 12).split(labels["t_start"], labels["t_end"], pd.DatetimeIndex(labels.index))
    walks = [walk_forward(features, labels, folds, small(), 3, workers=n) for n in (1, 2)]
    pd.testing.assert_frame_equal(walks[0].predictions, walks[1].predictions, check_exact=True)
    assert walks[0].folds["model_id"].tolist() == walks[1].folds["model_id"].tolist() and not walks[0].refusals
    answered = walks[0].predictions  # windows of the first test rows reach back into the training rows
    assert len(answered) == sum(fold.test_rows().size for fold in folds)


def test_a_fit_without_numbers_reaches_who_asked_for_it(deep, small, rows):
    features, labels = rows(600)
    wild = small().model_copy(update={"sequence": TINY.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(FitError, match="loss became"):
        Model(wild, 1).fit(features, labels)


# ── preflight

@pytest.fixture
def features(deep):
    rows, _ = market(BARS + 5 + 100)
    return pd.DataFrame(rows.matrix, pd.date_range("2024-01-01", periods=len(rows.matrix), freq="h", tz="UTC"), NAMES)


def test_preflight_has_no_reason_against_a_sound_market(features):
    assert sequence_preflight(features, params_of(), 5) == []
    assert sequence_preflight(features, params_of("direction"), 5) == []


def test_preflight_names_what_stands_in_the_way(features):
    def only(frame, params=params_of()):
        (reason,) = sequence_preflight(frame, params, 5)
        return reason

    n = len(features)
    assert f"{n - 1} rows" in only(features.iloc[1:]) and f"need {n}" in only(features.iloc[1:])
    empty = features.assign(oi_chg=np.where(np.arange(n) < 0.6 * n, np.nan, 1.0))
    assert "1 of 3 features" in only(empty) and "oi_chg" in only(empty)
    shifted = features.set_axis(features.index.where(np.arange(n) != 50, features.index[50] + pd.Timedelta("5min")))
    assert sequence_preflight(shifted, params_of(), 5) == []  # within a tenth
    shifted = features.set_axis(features.index.where(np.arange(n) != 50, features.index[50] + pd.Timedelta("7min")))
    assert "2 steps between bars" in only(shifted) and "usual 60 minutes" in only(shifted)
    assert "-inf" in only(features.assign(rsi_14=np.where(np.arange(n) == 9, -np.inf, 1.0)))
    assert "not a multiple" in only(features, params_of(hidden=30, heads=4))
    assert len(sequence_preflight(features.iloc[1:].drop(features.index[20]), params_of(), 5)) == 2


def test_preflight_looks_at_the_answer(features, monkeypatch):
    import cryptoalgo.models.sequence_preflight as room

    true = room.answers
    monkeypatch.setattr(room, "answers", lambda net, windows: true(net, windows) * float("nan"))
    assert "a loss of nan" in sequence_preflight(features, params_of(), 5)[0]
    monkeypatch.setattr(room, "answers", lambda net, windows: true(net, windows)[:, :-1])
    assert "gave (32, 6) on cpu, not (32, 7)" in sequence_preflight(features, params_of(), 5)[0]

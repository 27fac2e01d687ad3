"""The search of one coin: what it sees, what it costs, what it chooses, what it leaves in the ledger."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.errors import FitError, InputError
from cryptoalgo.core.ledger import Ledger, Span
from cryptoalgo.core.params import load_issue, resolve
from cryptoalgo.core.profiles import load_costs
from cryptoalgo.core.sections import Range
from cryptoalgo.research.dataset import features_fn, prepare
from cryptoalgo.research.objective import Worth
from cryptoalgo.models.training import walk_forward
from cryptoalgo.research import optimize as optimizing, trials as trying
from cryptoalgo.research.optimize import consensus, optimize, trials_of
from cryptoalgo.research.series import Experiment, Raw, last_moment, read_raw
from cryptoalgo.research.space import distributions, with_values
from cryptoalgo.research.study import Draw, holds
from cryptoalgo.research.trials import Bench, daily_of, run_trial, try_values

ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400_000
SMALL = ("simulator.days=420", "simulator.edge={BTC: 16}", "features.groups=[momentum, volatility]", "features.extra=[]", "model.n_estimators=15",
         "model.max_depth=2", "search.min_train_days=90", "search.n_folds=3", "search.batch=2", "search.startup_trials=4", "search.trials=8",
         "validation.holdout_interval_days=60", "validation.holdout_days=60")
SPACE = {"rules.threshold": Range(low=0.51, high=0.6), "labels.horizon_bars": Range(low=12, high=36, step=12, integer=True)}


def experiment(*sets: str, space: dict[str, Range] = SPACE) -> Experiment:
    params = resolve(ROOT / "params", load_issue(ROOT / "params" / "issues" / "001-demo.yaml"), "BTC", (*SMALL, *sets))
    params = params.model_copy(update={"search": params.search.model_copy(update={"space": space})})
    x = Experiment("BTC", "1h", params, load_costs(ROOT / "params" / "venues.yaml", params.costs), Span(0, 0))
    end = last_moment(x, None)
    return replace(x, holdout=Span(end - 60 * DAY, end))


def given(x: Experiment, raw: Raw | None = None):
    data = prepare(x, raw or read_raw(x, None, {}, None, x.holdout.start_ms))
    return data, features_fn(x)(data.series.bars, data.series.published)


@pytest.fixture(scope="module")
def x() -> Experiment:
    return experiment()


@pytest.fixture(scope="module")
def inputs(x):
    return given(x)


@pytest.fixture(scope="module")
def found(x, inputs, tmp_path_factory):
    return optimize(x, *inputs, f"sqlite:///{tmp_path_factory.mktemp('search')}/optuna.db", 1)


def same(a, b) -> bool:
    return a.trials.equals(b.trials) and a.terms.equals(b.terms) and a.chosen == b.chosen and a.summary == b.summary


def test_two_workers_find_the_same(x, inputs, found, tmp_path):
    assert same(optimize(x, *inputs, f"sqlite:///{tmp_path}/optuna.db", 2), found)
    assert len(found.trials) == 8 and found.trials["number"].tolist() == list(range(8))


def test_a_holdout_of_garbage_changes_no_trial(x, found, tmp_path):
    "The series is made anew with a holdout that was trebled; what is handed in ends before it, so the study is the same."
    whole = read_raw(x, None, {}, None, x.holdout.end_ms)
    late = whole.bars.index >= pd.Timestamp(x.holdout.start_ms, unit="ms", tz="UTC")
    assert late.sum() > 1000
    whole.bars.loc[late, ["open", "high", "low", "close"]] *= 3
    cut = {name: None if (f := getattr(whole, name)) is None else f[f.index < pd.Timestamp(x.holdout.start_ms, unit="ms", tz="UTC")]
           for name in ("bars", "funding", "open_interest")}
    garbled = replace(whole, **cut)
    assert same(optimize(x, *given(x, garbled), f"sqlite:///{tmp_path}/optuna.db", 2), found)


def test_every_bar_that_a_trial_may_see_lies_before_the_holdout(x, inputs):
    bench = Bench(x, *inputs)
    assert int(bench.series.bars["available_time"].max().timestamp() * 1000) <= x.holdout.start_ms
    for block in bench.blocks:
        assert block.market.times[-1] < x.holdout.start_ms


def test_the_test_blocks_are_the_same_whatever_the_horizon(x, inputs):
    bench = Bench(x, *inputs)
    blocks = [[f.test for f in bench.folds(bench.labels(with_values(x.params, {"labels.horizon_bars": h})))] for h in (12, 36)]
    assert blocks[0] == blocks[1] and bench.embargo == 48


def test_a_horizon_beyond_the_stated_embargo_is_tried_with_a_longer_one():
    x = experiment(space={"labels.horizon_bars": Range(choices=(12, 60))})
    bench = Bench(x, *given(x))
    assert x.params.splits.embargo_bars < bench.embargo == 60
    assert run_trial(bench, Draw(0, {"labels.horizon_bars": 60}), ()).state == "finished"


@pytest.mark.parametrize(("timeframe", "bars"), [("15m", 192), ("1h", 48), ("4h", 36)])
def test_the_embargo_of_a_search_is_two_days_or_the_longest_label(x, timeframe, bars):
    assert trying._embargo(replace(x, timeframe=timeframe)) == bars


def test_what_is_trained_on_is_known_before_the_block(x, inputs):
    bench = Bench(x, *inputs)
    for horizon in (12, 36):
        labels = bench.labels(with_values(x.params, {"labels.horizon_bars": horizon}))
        for fold, origin in zip(bench.folds(labels), bench.origins):
            begin = labels.index[fold.test[0].start]
            assert labels["t_end"].iloc[fold.train_rows()].max() <= begin - pd.Timedelta(hours=bench.embargo)
            assert origin[-1] < fold.test[0].start


def test_the_stated_values_are_tried_first_and_a_trial_alone_is_the_trial_of_the_study(x, inputs, found):
    first = found.trials.iloc[0]
    assert (first["rules.threshold"], first["labels.horizon_bars"]) == (x.params.rules.threshold, x.params.labels.horizon_bars)
    row = found.trials[found.trials["state"] == "finished"].iloc[-1]
    alone = try_values(Bench(x, *inputs), {n: row[n].item() for n in distributions(x)})
    assert alone.value == row["value"] and alone.notes["daily"] == row["daily"]


TASKS = {"direction": (), "return": ("labels.kind=turning_point_return", "labels.horizon_bars=4", "model.task=return", "model.min_auc=0")}


@pytest.mark.parametrize("task", TASKS)
def test_a_trial_learns_from_the_rows_that_training_learns_from(task, monkeypatch):
    x, learned_from, fit = experiment(*TASKS[task], "model.offsets_days=[0]", space={}), [], trying.Model.fit
    bench = Bench(x, *given(x))
    labels = bench.labels(x.params)
    trained = walk_forward(bench.bins, labels, bench.folds(labels), x.params.model, x.params.seed).folds["train_rows"].tolist()

    def counted(self, rows, some):
        learned_from.append(len(some))
        return fit(self, rows, some)

    monkeypatch.setattr(trying.Model, "fit", counted)
    try_values(bench, {})
    assert learned_from == trained and min(trained) > 1000


def test_a_failing_trial_fails_alone_and_keeps_its_reason(x, inputs, tmp_path, monkeypatch):
    calls, real = [], trying.Model.fit

    def fit(self, rows, labels):
        calls.append(1)
        if len(calls) in (4, 8):
            raise (FitError("the loss is NaN"), MemoryError("no room"))[len(calls) == 8]
        return real(self, rows, labels)

    monkeypatch.setattr(trying.Model, "fit", fit)
    mixed = optimize(x, *inputs, f"sqlite:///{tmp_path}/optuna.db", 1)
    for state, reason in (("pruned", "the loss is NaN"), ("failed", "MemoryError: no room")):
        (told,) = mixed.trials.loc[mixed.trials["reason"] == reason].to_dict("records")
        assert told["state"] == state and np.isnan(told["value"])
    assert len(mixed.trials) == 8


def test_a_loss_of_nan_in_the_second_fold_prunes_a_trial_of_the_encoder(deep, inputs, tmp_path, monkeypatch):
    import cryptoalgo.models.sequence as room

    encoder = "{encoder_bars: 8, hidden: 16, heads: 2, batch: 256, epochs: 1}"
    x = experiment("model.name=attention", "model.offsets_days=[0]", "model.calibration=platt", "model.calibration_folds=2", f"model.sequence={encoder}",
                   "search.trials=2", space={"rules.threshold": Range(low=0.51, high=0.6)})
    real, folds, fit = room.loss_of, [], trying.Model.fit

    def counted(self, rows, labels):
        folds.append(1)
        return fit(self, rows, labels)

    monkeypatch.setattr(trying.Model, "fit", counted)
    monkeypatch.setattr(room, "loss_of", lambda *args: real(*args) * (float("nan") if len(folds) == 2 else 1))
    found = optimize(x, *inputs, f"sqlite:///{tmp_path}/optuna.db", 1)
    assert found.trials["state"].tolist() == ["pruned", "finished"] and "loss became nan" in found.trials["reason"][0]
    assert len(folds) == 2 + x.params.search.n_folds  # the trial that was pruned went no further
    (first, second) = trials_of(x, inputs[0], found, "search")
    assert (first.state, second.state) == ("pruned", "finished") and second.daily is not None


def test_an_objective_that_is_no_number_is_a_failed_trial(x, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(trying, "worth", lambda folds, p: Worth(float("nan"), (), {}))
    none = optimize(x, *inputs, f"sqlite:///{tmp_path}/optuna.db", 1)
    finished = none.trials[none.trials["state"] != "pruned"]
    assert set(finished["state"]) == {"failed"} and none.chosen == {}
    assert finished["reason"].str.contains("not a number").all()


def test_a_refused_model_is_an_outcome(x, inputs):
    strict = replace(x, params=x.params.model_copy(update={"model": x.params.model.model_copy(update={"min_auc": 0.99})}))
    result = try_values(Bench(strict, *inputs), {})
    assert result.state == "finished" and result.value < -6 and "trades" in result.notes["rejected"]
    assert all("0.99 is needed" in reason for reason in result.notes["refused"].values())


def test_every_trial_enters_the_ledger_with_its_days_and_only_once(x, inputs, found, tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.fix_holdout(x.market, *x.holdout)
    trials = trials_of(x, inputs[0], found, "search")
    for trial in (*trials, *trials):
        ledger.record(trial)
    entries = ledger.view().find("trial")
    assert len(entries) == len({t.id for t in trials}) == len(found.trials)
    assert [e.body["state"] for e in entries] == found.trials["state"].tolist()
    for entry, trial in zip(entries, trials):
        assert entry.body["daily"] is not None and entry.body["end_ms"] <= x.holdout.start_ms
        assert (trial.daily.index.to_series().diff().dropna() == pd.Timedelta("1D")).all()
    blocks = Bench(x, *inputs).blocks
    days = (blocks[-1].last.floor("D") - blocks[0].first.floor("D")).days + 1
    assert {len(t.daily) for t in trials if t.state == "finished"} == {days}


def test_daily_returns_add_up_to_the_trials(x, inputs):
    result = try_values(Bench(x, *inputs), {})
    daily = daily_of({"first_day": result.notes["first_day"], "daily": result.notes["daily"]})
    bench = Bench(x, *inputs)
    assert daily.index[0] == bench.blocks[0].first.floor("D") and np.isfinite(daily).all()
    assert daily_of({"daily": None}) is None


def test_the_seeds_agree_and_what_they_agree_on_is_tried(inputs, tmp_path):
    x = experiment("search.seeds=[1, 2, 3]", "search.trials=4", "search.objective={min_trades: 1, min_trades_fold: 1, min_win_rate: 0.01, min_psr: 0.01, "
                   "min_expectancy: -1, min_fold_z: -9}")
    both = optimize(x, *inputs, f"sqlite:///{tmp_path}/optuna.db", 2)
    winners = [s["best"] for s in both.summary["studies"].values() if s["best"]]
    assert set(both.summary["studies"]) == {"seed 1", "seed 2", "seed 3"}
    if len(winners) > 1:
        agreed = consensus([w["values"] for w in winners], distributions(x))
        tested = both.trials[both.trials["study"] == "consensus"]
        assert len(tested) == 1 and all(tested.iloc[0][name] == value for name, value in agreed.items())
    again = optimize(x, *inputs, f"sqlite:///{tmp_path}/optuna.db", 1)
    assert same(again, both)


def test_medians_stay_on_the_grid_and_words_are_the_commonest():
    space = distributions(experiment("rules.short=false", space={
        "model.name": Range(choices=("lightgbm", "logistic")), "rules.threshold": Range(low=0.5, high=0.7, step=0.05),
        "labels.horizon_bars": Range(low=12, high=48, step=12, integer=True), "model.max_depth": None}))
    agreed = consensus([{"model.name": m, "rules.threshold": t, "labels.horizon_bars": h}
                        for m, t, h in (("logistic", 0.5, 12), ("lightgbm", 0.65, 48), ("lightgbm", 0.7, 24), ("logistic", 0.55, 36))], space)
    assert agreed["model.name"] == "logistic" and agreed["labels.horizon_bars"] in (24, 36)
    assert agreed["rules.threshold"] == pytest.approx(0.6)


@pytest.mark.parametrize("sets, said", [
    (("search.n_folds=12",), "test blocks of"),
    (("search.min_train_days=5000",), "days of training"),
])
def test_a_series_too_short_for_the_folds_is_refused(sets, said, inputs, tmp_path):
    with pytest.raises(InputError, match=said):
        optimize(experiment(*sets), *inputs, f"sqlite:///{tmp_path}/optuna.db", 1)


def test_a_study_of_other_bars_or_funding_is_refused(x, inputs, found, tmp_path):
    data, features = inputs
    url = f"sqlite:///{tmp_path}/optuna.db"
    few = replace(x, params=x.params.model_copy(update={"search": x.params.search.model_copy(update={"trials": 1})}))
    optimize(few, data, features, url, 1)
    shorter = replace(data, series=replace(data.series, bars=data.series.bars.iloc[:-24]))
    before = (tmp_path / "optuna.db").read_bytes()
    with pytest.raises(InputError, match="another dataset"):
        optimize(few, shorter, features.iloc[:-24], url, 1)
    corrected = replace(data, series=replace(data.series, funding=data.series.funding.assign(funding_rate=lambda f: f["funding_rate"] * 1.5)))
    with pytest.raises(InputError, match="another dataset"):
        optimize(few, corrected, features, url, 1)
    assert (tmp_path / "optuna.db").read_bytes() == before


def test_a_day_between_two_blocks_is_a_day_without_a_position(x):
    days = [pd.Series(0.01, pd.date_range(first, periods=2, tz="UTC")) for first in ("2024-01-01", "2024-01-05")]
    daily = daily_of(trying._packed(days, x))
    assert daily.index.tolist() == pd.date_range("2024-01-01", periods=6, tz="UTC").tolist() and daily.tolist() == [0.01, 0.01, 0, 0, 0.01, 0.01]


ISSUES = sorted((ROOT / "params" / "issues").glob("*.yaml"))


@pytest.mark.parametrize("path", ISSUES, ids=lambda p: p.stem)
def test_what_a_ready_issue_states_lies_in_the_space_that_it_searches(path):
    issue = load_issue(path)
    for coin in issue.coins:
        params = resolve(ROOT / "params", issue, coin, timeframe=issue.timeframes[0])
        space = distributions(Experiment(coin, issue.timeframes[0], params, load_costs(ROOT / "params" / "venues.yaml", params.costs), Span(0, 0)))
        stated = optimizing._stated(params, space)
        assert [name for name, d in space.items() if not holds(d, stated[name])] == [], coin
        assert ("labels.target_sigma" in stated) == (params.labels.kind == "direction_vote")


def test_a_stated_value_that_is_none_lies_in_no_range_of_numbers(x, inputs, tmp_path):
    off = replace(x, params=x.params.model_copy(update={
        "rules": x.params.rules.model_copy(update={"vol_mult_tp": None}),
        "search": x.params.search.model_copy(update={"trials": 2, "space": {"rules.vol_mult_tp": Range(low=2.0, high=9.0)}})}))
    looked = optimize(off, *inputs, f"sqlite:///{tmp_path}/optuna.db", 1)
    assert looked.trials["rules.vol_mult_tp"].between(2, 9).all() and looked.summary["not_tried"] == {"rules.vol_mult_tp": None}

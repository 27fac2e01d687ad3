"""A search as a stage of an issue and as a verb: through papermill and in process, killed and gone on with, refused with reasons."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.core.ledger import Ledger
from cryptoalgo.core.params import overlay
from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.simulate import simulate
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey
from cryptoalgo.research.study import alone, count_trials
from cryptoalgo.workbench.cli import main
from cryptoalgo.workbench.pipeline import Unit, open_holder
from cryptoalgo.workbench.run import run_issue
from cryptoalgo.workbench.runner import Here, RunOptions
from cryptoalgo.workbench.searches import Ask, run_optimize, units

from .conftest import SMALL, elsewhere, write_issue
from .verbs import say

NOT_SEARCHED = dict.fromkeys((
    "rules.vol_mult_tp", "rules.vol_mult_sl", "rules.max_hold_bars", "rules.cooldown_bars", "labels.target_sigma", "model.n_estimators", "model.max_depth",
    "model.learning_rate", "model.min_child_samples"))
SEARCH = {"trials": 4, "n_folds": 2, "min_train_days": 90, "min_test_days": 30, "batch": 2, "startup_trials": 2, "space": NOT_SEARCHED | {
    "rules.threshold": {"low": 0.51, "high": 0.59, "step": 0.01}, "labels.horizon_bars": {"low": 12, "high": 36, "step": 12, "integer": True}},
    "objective": {"min_trades": 1, "min_trades_fold": 1, "min_fold_z": -9, "min_win_rate": 0.01, "min_expectancy": -1, "min_psr": 0.001}}
FEW = {"features": {"groups": ["momentum", "volatility"], "extra": []}, "search": SEARCH}


@pytest.fixture(scope="module")
def few_results(tmp_path_factory):
    "Data and features that most of these searches begin with."
    with elsewhere(tmp_path_factory.mktemp("few")) as settings:
        run_optimize(settings, Ask(issue=write_issue(settings.home, params=overlay(SMALL, FEW)), trials=0))
    return settings.home / "data" / "prepared"


@pytest.fixture
def workbench(workbench, few_results):
    "A fresh workbench, which need not certify again what another one has."
    shutil.copytree(few_results, workbench.home / "data" / "prepared")
    return workbench


def made(issue_file, **changes):
    return issue_file(params=overlay(SMALL, FEW), **changes)


def artefacts(settings):
    root = settings.home / "reports" / "issue-7"
    return {str(p.parent.relative_to(root)): {stage: s["artefacts"] for stage, s in json.loads(p.read_text()).items()} for p in sorted(root.rglob("stages.json"))}


def told(file):
    "Ordered parameters, values and states of every study in a file."
    url = f"sqlite:///{file}"
    return {name: [(t.number, t.state.name, t.params, t.value) for t in optuna.load_study(study_name=name, storage=url).get_trials()]
            for name in optuna.get_all_study_names(url)}


def test_an_issue_that_searches_trains_and_trades_what_was_chosen(workbench, issue_file):
    path = made(issue_file)
    first = run_issue(path, workbench, RunOptions())
    assert [u["exit_code"] for u in first["units"]] == [0, 0], [u["error"] for u in first["units"]]
    assert list(first["units"][0]["run"]["stages"]) == ["data", "features", "optimize", "train", "backtest", "validate"]
    by_notebooks, folder = artefacts(workbench), workbench.home / "reports" / "issue-7" / "BTC" / "1h"
    assert {"optuna.db", "optuna_best.json", "trials.csv", "trial_terms.csv"} <= {p.name for p in folder.iterdir()}
    unit = open_holder(folder / "unit.json")
    best = json.loads((folder / "optuna_best.json").read_text())
    assert best["chosen"] and unit.experiment.params.rules.threshold == best["chosen"]["rules.threshold"]
    assert unit.load("train").model is not None and unit.experiment.params.labels.horizon_bars == best["chosen"]["labels.horizon_bars"]
    ledger = Ledger(workbench.home / "data" / "ledger.jsonl")
    trials = ledger.view().find("trial")
    assert sorted(t.body["coin"] for t in trials) == ["BTC"] * (len(trials) // 2) + ["ETH"] * (len(trials) // 2)
    assert json.loads((folder / "robustness.json").read_text())["n_trials"] == len(trials) // 2 > 1
    studies = told(folder / "optuna.db")

    second = run_issue(path, workbench, RunOptions())
    assert all(set(u["run"]["stages"].values()) == {"kept"} for u in second["units"])
    forced = run_issue(path, workbench, RunOptions(force=True, notebooks=False))
    assert artefacts(workbench) == by_notebooks and forced["run"]["changed"] == [] and told(folder / "optuna.db") == studies
    assert len(ledger.view().find("trial")) == len(trials), "the same trials are counted once"


def test_a_search_that_is_killed_goes_on_where_it_was(workbench, issue_file):
    path = made(issue_file, coins=["BTC"])
    ask = Ask(issue=path, trials=12)
    whole = run_optimize(workbench, ask)
    file = workbench.home / "reports" / "issue-7" / "BTC" / "1h" / "optuna.db"
    wanted, trials = told(file), pd.read_csv(file.with_name("trials.csv"))
    for left in (file, file.with_name("stages.json")):
        left.unlink()
    shutil.rmtree(workbench.home / "data" / "prepared" / "optimize")
    call = "import sys; from cryptoalgo.workbench.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", call, "optimize", str(path), "--trials", "12", "--json"], start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while count_trials(f"sqlite:///{file}") < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= count_trials(f"sqlite:///{file}") < 12
    again = run_optimize(workbench, ask)
    assert told(file) == wanted and pd.read_csv(file.with_name("trials.csv")).equals(trials)
    assert again.found[0]["chosen"] == whole.found[0]["chosen"] and again.found[0]["model_id"] == whole.found[0]["model_id"]


RECORDED = {"data": {"source": "store", "venue": "binanceusdm", "funding_venue": "binanceusdm", "oi_venue": "bybit", "start": "2022-01-01"}}
HELD_OUT_FROM = pd.Timestamp("2022-08-29", tz="UTC")  # 240 of 300 days


def stored(url, garbled_from, garbled_until):
    "A market as if it had been recorded, with nonsense in one stretch: prices that jump, funding and open interest of the wrong sign or size."
    market = simulate(SimulatorParams(days=300, start="2022-01-01", seed=7, edge={"BTC": 14}), ["BTC"])
    bars, funding, interest = market.bars["BTC"].drop(columns="is_filled"), market.funding["BTC"], market.open_interest["BTC"]
    for frame, columns, factor in ((bars, ["open", "high", "low", "close"], 3), (bars, ["volume"], 50), (funding, ["funding_rate"], -9), (interest, ["open_interest"], 7)):
        frame.loc[(frame.index >= garbled_from) & (frame.index < garbled_until), columns] *= factor
    store = Store(url)
    store.upsert(SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h"), bars, Provenance("x"))
    store.upsert(SeriesKey("funding", "binanceusdm", "BTCUSDT"), funding, Provenance("x"))
    store.upsert(SeriesKey("open_interest", "bybit", "BTCUSDT", "1h"), interest, Provenance("x"))
    store.engine.dispose()


def test_a_holdout_of_garbage_in_the_database_changes_no_study_and_no_model(workbench, issue_file, capsys, monkeypatch):
    monkeypatch.setattr("cryptoalgo.workbench.searches.pool", lambda n: Here())  # what a process of its own costs has nothing to do with it
    path, found = issue_file(params=overlay(overlay(SMALL, FEW), RECORDED), coins=["BTC"]), {}
    folder, never, file = workbench.home / "reports" / "issue-7", HELD_OUT_FROM + pd.Timedelta("999D"), workbench.database_url.removeprefix("sqlite:///")
    for name, start, end in (("clean", never, never), ("garbled", HELD_OUT_FROM, never),
                             ("before", HELD_OUT_FROM - pd.Timedelta("9D"), HELD_OUT_FROM)):  # the last shows that the garbage would be noticed
        for left in (folder, workbench.home / "data" / "prepared"):
            shutil.rmtree(left, ignore_errors=True)
        for left in workbench.home.glob(f"{Path(file).relative_to(workbench.home)}*"):
            left.unlink()
        stored(workbench.database_url, start, end)
        code, out, err = say(capsys, "optimize", path, "--trials", "4", "--json")
        assert code == 0, err
        (one,) = json.loads(out)["searches"]
        found[name] = told(folder / "BTC" / "1h" / "optuna.db"), one["chosen"], one["model_id"], artefacts(workbench)["BTC/1h"]["train"]
    assert found["clean"] == found["garbled"] != found["before"]
    held = Ledger(workbench.home / "data" / "ledger.jsonl").view().find("holdout")[0].body
    assert pd.Timestamp(held["start_ms"], unit="ms", tz="UTC") == HELD_OUT_FROM


def test_a_search_that_ran_out_of_time_is_gone_on_with(workbench, issue_file):
    path = made(issue_file, coins=["BTC"])
    told_of = [run_optimize(workbench, Ask(issue=path, trials=4, timeout_s=limit)).found[0] for limit in (0.3, None, None)]
    ended = [d["search"]["studies"]["seed 42"]["ended"] for d in told_of]
    assert ended == ["timeout", "trials", "trials"] and [d["trials"] for d in told_of] == [2, 4, 4]
    assert [d["stages"]["optimize"] for d in told_of] == ["computed", "computed", "kept"]


def test_trials_of_a_search_that_was_given_up_or_put_aside_count(workbench, issue_file):
    path, ledger = made(issue_file, coins=["BTC"]), Ledger(workbench.home / "data" / "ledger.jsonl")
    ask = Ask(issue=path, trials=2)
    run_optimize(workbench, ask)
    (workbench.home / "data" / "ledger.jsonl").rename(workbench.home / "data" / "first.jsonl")  # as if it had been killed before it counted
    other = run_optimize(workbench, ask._replace(sets=("rules.vol_mult_sl=3.5",), fresh=True)).found[0]
    folder = workbench.home / "reports" / "issue-7" / "BTC" / "1h"
    assert other["trials"] == 2 and count_trials(f"sqlite:///{folder / 'optuna-1.db'}") == 2
    bodies = [e.body for e in ledger.view().entries if e.kind == "trial"]
    first = [e.body for e in Ledger(workbench.home / "data" / "first.jsonl").view().entries if e.kind == "trial"]
    assert len(bodies) == 4 and [b["trial_id"] for b in bodies[:2]] == [b["trial_id"] for b in first] and all(b["daily"] for b in bodies)


def test_a_series_that_is_too_short_for_its_holdout_fixes_none(workbench, issue_file, capsys):
    for days in (40, 60, 170):
        assert main(["optimize", str(issue_file(coins=["BTC"])), f"--set=simulator.days={days}"]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and "left before the holdout" in error[0] and f"of {days} days" in error[0]
    assert not (workbench.home / "data" / "ledger.jsonl").exists()


def test_trials_of_a_search_count_though_the_training_after_it_failed(workbench, issue_file, capsys, monkeypatch):
    def broken(*args):
        raise InputError("no training today")

    path, train = made(issue_file, coins=["BTC"]), Unit.stages.fget
    monkeypatch.setattr(Unit, "stages", property(lambda unit: train(unit) | {"train": train(unit)["train"]._replace(compute=broken)}))
    monkeypatch.setattr("cryptoalgo.workbench.searches.pool", lambda n: Here())
    found = run_optimize(workbench, Ask(issue=path, trials=2)).found[0]
    assert "no training today" in found["error"]
    assert sum(e.kind == "trial" for e in Ledger(workbench.home / "data" / "ledger.jsonl").view().entries) == 2


def test_no_search_trains_with_what_is_stated(workbench, issue_file):
    found = run_optimize(workbench, Ask(issue=made(issue_file, coins=["BTC"]), trials=0))
    assert found.exit_code == 0 and "search" not in found.found[0] and "stated parameters stand" in found.text()
    assert found.found[0]["model_id"] or found.found[0]["refusal"]
    for expected, rate in ((1, "0.1"), (1, "0.1"), (2, "0.2")):  # scores that were read count, the same ones once
        run_optimize(workbench, Ask(issue=made(issue_file, coins=["BTC"]), trials=0, sets=(f"model.learning_rate={rate}",)))
        counted = Ledger(workbench.home / "data" / "ledger.jsonl").view().find("trial")
        assert len(counted) == 1 + expected and {e.body["state"] for e in counted} == {"pruned"}


@pytest.mark.parametrize("sets, said", [
    (("search.space={rules.treshold: {low: 0.5, high: 0.6}}",), "did you mean 'rules.threshold'"),
    (("search.space={rules.threshold: {low: 0.1, high: 0.6}}",), "rules.threshold"),
    (("search.space={rules.vol_mult_tp: {low: -3, high: 3}}",), "vol_mult_tp"),
    (("search.space={model.name: {choices: []}}",), "name one or more"),
    (("search.space={model.name: {choices: [lightgbm, lightgmb]}}",), "did you mean 'lightgbm'"),
    (("rules.size.leverge=3",), "did you mean 'leverage'"),
    (("rules.filters.regimes=[calm]",), "'calm' is no regime"),
    (("rules.size.notional_usd=5e7",), "simulator allows 20 times an account of 100,000"),
    (("model.name=lightgbmm",), "did you mean 'lightgbm'"),
    (("search.seeds=[]",), "search.seeds"),
    (("search.trials=-3",), "search.trials"),
])
def test_a_wrong_search_is_refused_before_anything_is_computed(sets, said, workbench, issue_file):
    with pytest.raises(InputError) as refused:
        run_optimize(workbench, Ask(issue=made(issue_file, coins=["BTC"]), sets=sets))
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (workbench.home / "reports").exists() and not (workbench.home / "data" / "ledger.jsonl").exists()


def test_more_folds_than_the_bars_allow_are_refused_and_no_study_is_made(workbench, issue_file):
    found = run_optimize(workbench, Ask(issue=made(issue_file, coins=["BTC"]), sets=("search.n_folds=9",)))
    assert found.exit_code == 2 and "ask for fewer folds" in found.found[0]["error"] and "\n" not in found.found[0]["error"]
    assert not (workbench.home / "reports" / "issue-7" / "BTC" / "1h" / "optuna.db").exists()


def test_a_coin_that_is_named_twice_is_searched_once_and_two_searches_do_not_share_a_file(workbench, issue_file):
    path = made(issue_file, coins=["BTC"])
    found = run_optimize(workbench, Ask(("BTC", "BTC"), ("1h", "1h"), issue=path, trials=2))
    folder = workbench.home / "reports" / "issue-7" / "BTC" / "1h"
    assert len(found.found) == 1 and count_trials(f"sqlite:///{folder / 'optuna.db'}") == 2
    with alone(f"sqlite:///{folder / 'optuna.db'}"):
        second = run_optimize(workbench, Ask(issue=path, trials=4))
    assert second.exit_code == 3 and "another search is writing" in second.found[0]["error"]
    assert count_trials(f"sqlite:///{folder / 'optuna.db'}") == 2


def test_another_datasets_study_is_refused_and_can_be_put_aside(workbench, issue_file):
    path = made(issue_file, coins=["BTC"])
    run_optimize(workbench, Ask(issue=path, trials=2))
    file = workbench.home / "reports" / "issue-7" / "BTC" / "1h" / "optuna.db"
    before = file.read_bytes()
    other = Ask(issue=path, trials=2, sets=("simulator.seed=8",))
    refused = run_optimize(workbench, other)
    assert refused.exit_code == 2 and "another dataset" in refused.found[0]["error"] and file.read_bytes() == before
    fresh = run_optimize(workbench, other._replace(fresh=True))
    assert fresh.exit_code == 0 and file.with_name("optuna-1.db").read_bytes() == before


def test_units_share_the_machine(workbench, issue_file):
    assert [u.threads for u in units(workbench, Ask(issue=made(issue_file)))] == [1, 1]
    assert [u.threads for u in units(workbench, Ask(issue=made(issue_file, coins=["BTC"])))] == [2]

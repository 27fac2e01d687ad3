"""An issue end to end in miniature: through papermill and in process, twice, forced, and with things going wrong."""

import json

import pandas as pd
import pytest

from cryptoalgo.core.errors import GateError, InputError
from cryptoalgo.core.ledger import Ledger
from cryptoalgo.workbench.pipeline import open_holder
from cryptoalgo.workbench.run import run_issue
from cryptoalgo.workbench.runner import RunOptions

from .conftest import SMALL

STAGES = ["data", "features", "train", "backtest", "validate"]


def artefacts(settings, number=7):
    "Hashes of the deterministic artefacts of an issue, by coin or portfolio folder."
    root = settings.home / "reports" / f"issue-{number}"
    return {str(p.parent.relative_to(root)): {stage: s["artefacts"] for stage, s in json.loads(p.read_text()).items()}
            for p in sorted(root.rglob("stages.json"))}


def test_papermill_and_in_process_leave_the_same_bytes_and_a_second_run_recomputes_nothing(workbench, issue_file):
    path = issue_file()
    first = run_issue(path, workbench, RunOptions())
    assert [u["exit_code"] for u in first["units"]] == [0, 0], [u["error"] for u in first["units"]]
    assert all(list(u["run"]["stages"].values()) == ["computed"] * 5 for u in first["units"])
    by_notebooks = artefacts(workbench)
    assert {"BTC/1h", "ETH/1h", "portfolio/1h"} == set(by_notebooks)
    chain = (workbench.home / "data" / "ledger.jsonl").read_bytes()

    second = run_issue(path, workbench, RunOptions())
    assert all(list(u["run"]["stages"].values()) == ["kept"] * 5 for u in second["units"])
    assert artefacts(workbench) == by_notebooks
    assert (workbench.home / "data" / "ledger.jsonl").read_bytes() == chain, "the same trial is counted once"

    forced = run_issue(path, workbench, RunOptions(force=True, notebooks=False))
    assert all(list(u["run"]["stages"].values()) == ["computed"] * 5 for u in forced["units"])
    assert artefacts(workbench) == by_notebooks, "in process and forced: the same bytes as through papermill"
    assert forced["run"]["changed"] == [] and forced["run"]["same"] > 20


def test_the_report_says_simulated_and_has_every_deliverable(warm, issue_file):
    summary = run_issue(issue_file(), warm, RunOptions(notebooks=False))
    root = warm.home / "reports" / "issue-7"
    assert summary["simulated"] and "SIMULATED" in (root / "index.html").read_text()
    for coin in ("BTC", "ETH"):
        here = {p.name for p in (root / coin / "1h").iterdir()}
        assert {"qa.json", "qa.csv", "dataset_qa.json", "dataset_qa.csv", "leakage.json", "metrics_test.json", "preds_test.parquet", "backtest_metrics.json", "trades.csv",
                "equity.csv", "equity_curve.png", "diagnostics.json", "robustness.json", "readiness.json"} <= here
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["ledger_head"] == Ledger(warm.home / "data" / "ledger.jsonl").view().head


def test_a_failing_coin_leaves_the_others_alone(workbench, issue_file):
    path = issue_file(coin_params={"ETH": {"splits": {"min_train_days": 5000}}})
    summary = run_issue(path, workbench, RunOptions())
    btc, eth = summary["units"]
    assert btc["exit_code"] == 0 and btc["tier"] in ("FULL", "PILOT", "SHADOW", "REJECT")
    assert eth["exit_code"] == 2 and eth["failed_notebook"] == "p20_features" and "min_train_days" in eth["error"]


def test_the_holdout_changes_nothing_before_the_verdict(warm, issue_file, monkeypatch):
    "The development stages are handed data that physically ends: another holdout leaves them byte-equal."
    from cryptoalgo.research import series

    run_issue(issue_file(), warm, RunOptions(notebooks=False))
    before = artefacts(warm)
    real = series.simulate

    def garbled(params, coins, timeframe):
        market = real(params, coins, timeframe)
        for bars in market.bars.values():
            late = bars.index >= bars.index[-1] - (bars.index[-1] - bars.index[0]) * (59 / 300)
            bars.loc[late, ["open", "high", "low", "close"]] *= 3.0
        return market

    monkeypatch.setattr(series, "simulate", garbled)
    run_issue(issue_file(), warm, RunOptions(notebooks=False, force=True))
    after = artefacts(warm)
    for coin in ("BTC/1h", "ETH/1h"):
        assert all(before[coin][stage] == after[coin][stage] for stage in STAGES[:-1])
        assert before[coin]["validate"] != after[coin]["validate"]


def test_one_changed_rule_recomputes_the_backtest_and_not_the_features(warm, issue_file):
    path = issue_file()
    run_issue(path, warm, RunOptions(notebooks=False))
    changed = run_issue(path, warm, RunOptions(("rules.threshold=0.57",), notebooks=False))
    for unit in changed["units"]:
        assert unit["run"]["stages"] == {"data": "kept", "features": "kept", "train": "kept", "backtest": "computed", "validate": "computed"}


def test_a_second_candidate_is_counted_and_reads_the_holdout_a_second_time(warm, issue_file):
    path = issue_file()
    run_issue(path, warm, RunOptions(notebooks=False))
    run_issue(path, warm, RunOptions(("rules.threshold=0.57",), notebooks=False))
    robustness = json.loads((warm.home / "reports/issue-7/BTC/1h/robustness.json").read_text())
    assert robustness["n_trials"] == 2 and robustness["holdout_readers"] == 2
    checks = {c["name"]: c for c in json.loads((warm.home / "reports/issue-7/BTC/1h/readiness.json").read_text())["checks"]}
    assert not checks["holdout_read_once"]["passed"]


def test_another_stretch_of_the_holdout_is_another_read(warm, issue_file):
    path = issue_file(coins=["BTC"])
    run_issue(path, warm, RunOptions(notebooks=False))
    run_issue(path, warm, RunOptions(("validation.holdout_days=30",), notebooks=False))
    assert json.loads((warm.home / "reports/issue-7/BTC/1h/robustness.json").read_text())["holdout_readers"] == 2


def test_nothing_reads_the_holdout_that_the_ledger_does_not_know(warm, issue_file):
    run_issue(issue_file(coins=["BTC"]), warm, RunOptions(notebooks=False))
    file = warm.home / "reports/issue-7/BTC/1h/unit.json"
    unit = json.loads(file.read_text())
    file.write_text(json.dumps(unit | {"params": unit["params"] | {"rules": unit["params"]["rules"] | {"threshold": 0.58}}}))
    holder = open_holder(file)
    holder.run("backtest")
    with pytest.raises(GateError, match="does not know that this candidate reads the holdout"):
        holder.run("validate")
    file.write_text(json.dumps(unit | {"holdout": [unit["holdout"][0] + 86_400_000, unit["holdout"][1]]}))
    with pytest.raises(GateError, match="fixed another holdout"):
        open_holder(file).run("data")


def test_refused_folds_count_as_flat_days(warm, issue_file):
    small = SMALL | {"model": {"n_estimators": 20, "min_auc": 0.99}}
    summary = run_issue(issue_file(coins=["BTC"], params=small), warm, RunOptions(notebooks=False))
    equity = pd.read_csv(warm.home / "reports/issue-7/BTC/1h/equity.csv")
    assert summary["units"][0]["tier"] == "REJECT" and (equity["equity"] == 100_000).all()
    first, last = pd.to_datetime(equity["event_time"].iloc[[0, -1]], utc=True)
    assert first >= pd.Timestamp("2022-01-01", tz="UTC") + pd.Timedelta("120D") and last - first > pd.Timedelta("110D")


def test_a_forecast_of_the_return_is_scored_alike_before_and_on_the_holdout(warm, issue_file):
    small = SMALL | {"model": SMALL["model"] | {"task": "return", "min_auc": 0.0}}
    run_issue(issue_file(coins=["BTC"], params=small), warm, RunOptions(notebooks=False))
    before, on_holdout = (json.loads((warm.home / "reports/issue-7/BTC/1h" / name).read_text())["scores"]
                          for name in ("metrics_test.json", "holdout_metrics.json"))
    assert set(on_holdout) == set(before) >= {"rmse", "r2", "signal_r2", "direction_accuracy"}
    assert on_holdout["rmse"]["value"] > 0 and on_holdout["rmse"]["n"] < before["rmse"]["n"]


@pytest.mark.parametrize(("changes", "says"), [
    ({"coins": ["BTC"], "params": {"rules": {"treshold": 0.6}}}, "threshold"),
    ({"params": {"simulator": {"edge": {"XRP": 9}}, "data": {"source": "simulator"}}}, "XRP"),
    ({"timeframes": ["1hour"]}, "1hour"),
    ({"params": {"costs": {"venue": "binanceusd"}}}, "binanceusdm"),
])
def test_wrong_parameters_are_refused_before_anything_runs(workbench, issue_file, changes, says):
    with pytest.raises(InputError, match=says):
        run_issue(issue_file(**changes), workbench, RunOptions(notebooks=False))
    assert not (workbench.home / "reports" / "issue-7").exists()
    assert not (workbench.home / "data").exists()

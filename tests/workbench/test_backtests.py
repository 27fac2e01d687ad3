"""`cryptoalgo backtest --coins`: one account over several coins, to the cent; outcomes with reasons; errors in one line."""

import json

import pandas as pd
import pytest

from cryptoalgo.core.ledger import Ledger
from cryptoalgo.workbench.backtests import CUTS
from cryptoalgo.workbench.cli import main

from .verbs import say

SETS = [f"--set={change}" for change in (
    "simulator.days=200", "splits.min_train_days=80", "splits.n_folds=2", "model.n_estimators=20", "features.groups=[momentum]", "features.extra=[]",
    "validation.holdout_interval_days=40", "validation.holdout_days=40")]
PARTS = ("gross", "slippage", "fees", "funding", "net")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setenv("CRYPTOALGO_WORKERS", "1")


def ask(capsys, *args):
    "The answer over the demo market, as text and as values."
    code, out, err = say(capsys, "backtest", "params/issues/001-demo.yaml", *SETS, *args, "--json")
    assert code == 0, err
    return out, json.loads(out)


def files(answer) -> dict[str, bytes]:
    return {f.rpartition("/")[2]: open(f, "rb").read() for f in answer["files"]}


def test_a_joint_run_reconciles_is_counted_and_does_not_know_in_which_order_it_was_asked(workbench, capsys):
    out, answer = ask(capsys, "--coins", "SOL,BTC")
    assert [c["coin"] for c in answer["coins"]] == ["BTC", "SOL"] and answer["outcome"] == "traded" and answer["reason"] is None and answer["simulated"]
    whole = {part: round(100 * answer["waterfall"]["total"][part]) for part in PARTS}
    for cut in CUTS:
        rows = answer["waterfall"][f"by_{cut}"].values()
        assert {part: sum(round(100 * row[part]) for row in rows) for part in PARTS} == whole
        assert all(round(100 * row["net"]) == sum(round(100 * row[part]) for part in PARTS[:-1]) for row in rows)
        assert sum(row["n_trades"] for row in rows) == len(answer["trades"]) == answer["totals"]["n_trades"]
    assert answer["waterfall"]["total"]["net"] == pytest.approx(sum(t["net"] for t in answer["trades"]), abs=0.005)
    assert sum(answer["rejected"].values()) + len(answer["trades"]) == sum(c["n_signals"] for c in answer["coins"])
    assert [c["net"] for c in answer["coins"]] == [answer["waterfall"]["by_symbol"][c["symbol"]]["net"] for c in answer["coins"]]
    assert answer["metrics"]["bars_per_year"] == 8760 and answer["metrics"]["worst_net_usd"] <= answer["totals"]["net"] + 1e-9
    left = files(answer)
    assert set(left) >= {"trades.csv", "equity.csv", "signals.csv", "equity_curve.png", "waterfall.png", "backtest.json"}
    assert len(pd.read_csv(workbench.home / "reports/backtests/001-demo/1h-BTC-SOL/trades.csv")) == len(answer["trades"])

    ledger = Ledger(workbench.home / "data" / "ledger.jsonl").view()
    assert [e.body["coin"] for e in ledger.find("trial")] == ["BTC", "SOL"] and not ledger.find("holdout_read")
    again, same = ask(capsys, "--coins", "BTC,SOL,BTC")
    assert again == out and files(same) == left
    assert Ledger(workbench.home / "data" / "ledger.jsonl").view().head == ledger.head == answer["ledger_head"]

    _, idle = ask(capsys, "--coins", "BTC,SOL", "--set", "rules.filters.min_momentum=9")
    assert idle["outcome"] == "no_trades" and idle["trades"] == [] and set(idle["rejected"]) == {"momentum"}
    for c in idle["coins"]:
        assert c["reason"] == f"All {c['n_signals']:,} signals of {c['coin']} were turned away: {c['n_signals']:,} by momentum" and c["reason"] in idle["reason"]
    assert len(Ledger(workbench.home / "data" / "ledger.jsonl").view().find("trial")) == 4

    code, text, err = say(capsys, "backtest", "params/issues/001-demo.yaml", *SETS, "--coins", "BTC", "--set", "model.min_auc=0.99")
    assert code == 0 and "no model answered" in text and "0.99" in text and "stages" in err


@pytest.mark.parametrize(("args", "names"), [
    (["--coins", "BTC"], "run `cryptoalgo ingest"),
    (["--coins", ","], "names no coin"),
    (["--timeframe", "1hour"], "1hour"),
    (["params/issues/002-base.yaml"], "002-baseline.yaml"),
    (["--set", "costs.venue=binanceusd"], "did you mean 'binanceusdm'"),
    (["--set", "costs={venue: coinbase, tier: per_contrac}"], "did you mean 'per_contract'"),
    (["params/issues/001-demo.yaml", "--coins", "DOG", "--set", "costs={venue: coinbase, tier: regular}"], "contract_units of DOG: coinbase lists none (did you mean 'DOGE'?)"),
    (["--set", "costs.venue=binance"], "set rules.short=false"),
    (["--set", "rules.archetype=memes"], "did you mean 'meme'"),
    (["--set", "rules.side=vote"], "direction_vote"),
    (["--decisions", "d.csv"], "--bars FILE and --config FILE"),
    (["--decisions", "d.csv", "--coins", "BTC"], "leave out the issue, --coins"),
    (["--bars", "b.csv"], "add --decisions FILE"),
])
def test_wrong_input_is_one_line_and_exit_code_2(workbench, capsys, args, names):
    code, out, err = say(capsys, "backtest", *args)
    assert code == 2 and out == "" and names in err and err.count("\n") == 1 and "Traceback" not in err
    assert not (workbench.home / "reports").exists()


def test_a_coin_that_is_not_stored_is_named_with_the_nearest(workbench, capsys):
    index = pd.date_range("2022-01-01", periods=300, freq="h", tz="UTC")
    folder = workbench.home / "files" / "ohlcv-perp" / "binance"
    folder.mkdir(parents=True)
    pd.DataFrame({"timestamp": index.astype(str), "open": 1.0, "high": 1.1, "low": 0.9, "close": 1.0, "volume": 1.0}).to_csv(folder / "DOGEUSDT-1h.csv", index=False)
    assert main(["ingest", "--from", str(workbench.home / "files")]) == 0
    capsys.readouterr()
    code, out, err = say(capsys, "backtest", "--coins", "DOT")
    assert code == 2 and out == "" and "--coins DOT: no 1h candles of DOTUSDT at binanceusdm are stored (did you mean 'DOGEUSDT'?)" in err and err.count("\n") == 1
    code, out, err = say(capsys, "backtest", "--coins", "DOG")
    assert code == 2 and out == "" and "contract_units of DOG: binanceusdm lists none (did you mean 'DOGE'?)" in err and err.count("\n") == 1
    code, _, err = say(capsys, "backtest", "--coins", "DOGE", "--timeframe", "4h")
    assert code == 2 and "no 4h candles of DOGEUSDT" in err

"""The command line as a user meets it: one line, the right exit code, JSON alone on stdout."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from .verbs import say


@pytest.mark.parametrize(("args", "names"), [
    (["runn"], "runn"),
    (["run"], "issue"),
    (["run", "params/issues/001-dem.yaml"], "001-demo.yaml"),
    (["run", "params/issues/001-demo.yaml", "--set", "rules.treshold=1"], "threshold"),
    (["run", "params/issues/001-demo.yaml", "--set", "rules"], "section.key=value"),
    (["run", "params/issues/001-demo.yaml", "--engine", "fast"], "inprocess"),
    (["ingest", "--from", "nowhere"], "nowhere"),
    (["run", "params/issues/002-baseline.yaml"], "ingest"),
])
def test_wrong_input_is_one_line_and_exit_code_2(workbench, capsys, args, names):
    code, out, err = say(capsys, *args)
    assert code == 2 and out == ""
    assert err.startswith("cryptoalgo: ") and names in err and err.count("\n") == 1
    assert "Traceback" not in err


def test_json_is_one_object_alone_on_stdout(workbench, issue_file, capsys):
    code, out, err = say(capsys, "run", issue_file(), "--no-notebooks", "--json")
    summary = json.loads(out)
    assert code == 0 and [u["coin"] for u in summary["units"]] == ["BTC", "ETH"]
    for unit in summary["units"]:
        assert {"tier", "score", "net_edge_bps", "reasons"} <= set(unit)
    code, out, _ = say(capsys, "ledger", "--json")
    assert code == 0 and json.loads(out)["head"] == summary["ledger_head"]


def test_a_folder_that_cannot_be_written_is_exit_code_3(workbench, issue_file, capsys):
    (workbench.home / "data").write_text("a file where a folder should be")
    code, out, err = say(capsys, "run", issue_file(), "--no-notebooks")
    assert code == 3 and out == "" and err.count("\n") == 1 and "data" in err


def test_a_corrupt_database_is_named_and_left_as_it_was(workbench, capsys, tmp_path):
    (workbench.home / "data").mkdir()
    database = workbench.home / "data" / "trading.db"
    database.write_bytes(b"this is no database" * 100)
    code, out, err = say(capsys, "run", "params/issues/002-baseline.yaml")
    assert code in (2, 3) and out == "" and "trading.db" in err and err.count("\n") == 1
    assert database.read_bytes() == b"this is no database" * 100


def test_a_broken_ledger_is_a_gate_that_says_no(workbench, issue_file, capsys):
    assert say(capsys, "run", issue_file(), "--no-notebooks")[0] == 0
    ledger = workbench.home / "data" / "ledger.jsonl"
    text = ledger.read_text()
    ledger.write_text(text.replace('"BTC"', '"BTX"', 1))
    code, out, err = say(capsys, "ledger")
    assert code == 1 and out == "" and "line" in err


def test_backtest_of_a_decisions_table_reconciles(workbench, capsys):
    index = pd.date_range("2024-01-01", periods=200, freq="h", tz="UTC")
    price = pd.Series(100 + (pd.Series(range(200)) % 7 - 3) * 0.4, dtype=float)
    bars = pd.DataFrame({"timestamp": index.astype(str), "open": price, "high": price + 1, "low": price - 1, "close": price, "volume": 1.0})
    bars.to_csv(workbench.home / "bars.csv", index=False)
    pd.DataFrame({"event_time": index[30:180:20].astype(str), "side": [1, -1] * 4}).to_csv(workbench.home / "d.csv", index=False)
    (workbench.home / "c.yaml").write_text("{fee_bps: 5, slippage_bps: 2, vol_mult_tp: 4, vol_mult_sl: 4, max_hold_bars: 10, size: {notional_usd: 1000}}")
    code, out, err = say(capsys, "backtest", "--decisions", "d.csv", "--bars", "BTCUSDT=bars.csv", "--config", "c.yaml", "--json")
    answer = json.loads(out)
    assert code == 0 and len(answer["trades"]) == 8
    for trade in answer["trades"]:
        assert trade["net"] == pytest.approx(trade["gross"] + trade["slippage"] + trade["fees"] + trade["funding"], abs=1e-9)
    assert answer["totals"]["net"] == pytest.approx(sum(t["net"] for t in answer["trades"]))
    (workbench.home / "c.yaml").write_text("{fee_bp: 5, slippage_bps: 2, size: {notional_usd: 1000}}")
    code, out, err = say(capsys, "backtest", "--decisions", "d.csv", "--bars", "BTCUSDT=bars.csv", "--config", "c.yaml")
    assert code == 2 and "fee_bps" in err


def test_help_imports_nothing_heavy():
    code = "import sys; from cryptoalgo.workbench.cli import main; main(['--help']); print(sorted({'numba', 'pandas', 'lightgbm', 'matplotlib', 'sqlalchemy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]") and "ingest" in run.stdout

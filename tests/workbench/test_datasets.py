"""`cryptoalgo features`: files that people and tools can read, a certificate, and errors that say what to do."""

import json

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.workbench.cli import main

from .verbs import say

SETS = ["--set", "simulator.days=240", "--set", "splits.min_train_days=100", "--set", "splits.n_folds=2", "--set", "validation.holdout_days=30",
        "--set", "validation.holdout_interval_days=30", "--set", "simulator.edge={}"]


def ask(capsys, *args):
    "The answer to `features` on the demo market."
    code, out, err = say(capsys, "features", "params/issues/001-demo.yaml", *SETS, *args, "--json")
    return code, json.loads(out), err


def test_features_of_two_coins_are_certified_written_and_kept(workbench, capsys):
    code, answer, _ = ask(capsys, "--coins", "BTC,ETH", "--groups", "momentum,calendar", "--format", "csv")
    assert code == 0 and answer["passed"] and [d["symbol"] for d in answer["datasets"]] == ["BTCUSDT", "ETHUSDT"]
    for d in answer["datasets"]:
        assert d["simulated"] and d["certificate"]["passed"] and d["certificate"]["bars_cut"] == 336
        assert {g["result"] for g in d["groups"].values()} == {"computed"} and d["labels"]["result"] == "computed"
        files = {f.rpartition("/")[2]: f for f in d["files"]}
        assert set(files) == {"features.csv", "labels.csv", "dataset.csv", "leakage.json", "dataset_qa.json", "dataset_qa.csv"}
        features = pd.read_csv(files["features.csv"], index_col="event_time", dtype="float32", parse_dates=["event_time"], date_format="ISO8601")
        both = pd.read_csv(files["dataset.csv"])
        assert len(features) == d["rows"] == len(both) and features.shape[1] == d["columns"] == 32
        assert not {"y", "ret", "t_end"} & set(features) and {"y", "ret", "t_start", "t_end", "weight"} <= set(both)
        assert json.load(open(files["leakage.json"]))["passed"]
    code, again, _ = ask(capsys, "--coins", "BTC,ETH", "--groups", "momentum,calendar")
    assert {g["result"] for d in again["datasets"] for g in d["groups"].values()} == {"kept"}
    parquet = pd.read_parquet(next(f for f in again["datasets"][1]["files"] if f.endswith("features.parquet")))
    assert np.array_equal(parquet.to_numpy(), features.to_numpy(), equal_nan=True)  # the text reads back bit for bit


def test_one_more_group_computes_that_group_alone(workbench, capsys):
    ask(capsys, "--coins", "ETH", "--groups", "trend,calendar")
    _, answer, _ = ask(capsys, "--coins", "ETH", "--groups", "trend,calendar,costs")
    assert {name: g["result"] for name, g in answer["datasets"][0]["groups"].items()} == {"trend": "kept", "calendar": "kept", "costs": "computed"}


def test_the_whole_set_of_a_coin_on_the_simulator(workbench, capsys):
    code, out, _ = say(capsys, "features", *SETS, "--set", "data={source: simulator, venue: simulator, funding_venue: simulator, oi_venue: simulator}",
                       "--set", "costs.venue=simulator", "--coins", "SOL", "--json")
    (d,) = json.loads(out)["datasets"]
    assert code == 0 and {"macro", "by_bars", "cross_coin", "sol"} <= set(d["groups"]) and not {"btc", "doge"} & set(d["groups"])


def test_the_list_computes_nothing(workbench, capsys):
    code, out, _ = say(capsys, "features", "--list", "--groups", "funding_oi", "--json")
    found = json.loads(out)["features"]
    assert code == 0 and len(found) == 7 and found[0]["feature"] == "funding_rate_bps" and found[0]["lists"] == "A: funding_rate_bps"
    code, out, _ = say(capsys, "features", "--list")
    assert code == 0 and "momentum" in out and "  rsi_14 " in out
    assert not (workbench.home / "data" / "features").exists()


@pytest.mark.parametrize(("args", "names"), [
    (["--groups", "momentums"], "did you mean 'momentum'"),
    (["--format", "json"], "there is parquet, and csv"),
    (["--coins", "BTC", "--groups", "cross_coin"], "leave it out of features.extra of BTC"),
    (["--timeframes", "4h", "--groups", "return_1h"], "does not exist at 4h"),
    (["--list", "--groups", "nothing"], "neither a group nor a feature"),
])
def test_wrong_input_is_one_line_and_exit_code_2(workbench, capsys, args, names):
    code, out, err = say(capsys, "features", "params/issues/001-demo.yaml", *SETS, *args)
    assert code == 2 and out == "" and names in err and err.count("\n") == 1 and "Traceback" not in err


def stored(workbench, bars: pd.DataFrame) -> None:
    "Bars of BTCUSDT in the market database, without funding or open interest."
    folder = workbench.home / "files" / "ohlcv-perp" / "binance"
    folder.mkdir(parents=True)
    bars.to_csv(folder / "BTCUSDT-1h.csv", index=False)
    assert main(["ingest", "--from", str(workbench.home / "files")]) == 0


def hours(n: int) -> pd.DataFrame:
    index = pd.date_range("2022-01-01", periods=n, freq="h", tz="UTC")
    close = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.005, n)))
    return pd.DataFrame({"timestamp": index.astype(str), "open": close, "high": close * 1.01, "low": close / 1.01, "close": close, "volume": 1.0})


def test_a_symbol_without_funding_is_an_error_and_never_zero(workbench, capsys):
    stored(workbench, hours(24 * 800))
    capsys.readouterr()
    code, out, _ = say(capsys, "features", "--coins", "BTC", "--groups", "funding_oi", "--json")
    (d,) = json.loads(out)["datasets"]
    assert code == 2 and "no funding binanceusdm BTCUSDT is stored" in d["error"]
    code, out, _ = say(capsys, "features", "--coins", "BTC", "--groups", "funding_oi", "--set", "data.funding_venue=null", "--set", "data.oi_venue=null", "--json")
    (d,) = json.loads(out)["datasets"]
    assert code == 2 and "column 'funding_rate' is missing" in d["error"] and "leave out funding_oi" in d["error"]


def test_a_market_that_is_not_stored_is_named_with_the_remedy(workbench, capsys):
    stored(workbench, hours(24 * 800))
    capsys.readouterr()
    code, out, _ = say(capsys, "features", "--coins", "BTC", "--groups", "macro", "--set", "data.funding_venue=null", "--set", "data.oi_venue=null", "--json")
    (d,) = json.loads(out)["datasets"]
    assert code == 2 and "SPY" in d["error"] and "ingest" in d["error"]

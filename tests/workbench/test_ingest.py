"""The ingest verb as a user meets it: from the venues, from a folder, into a snapshot, and with every wrong word."""

import json

import pytest

from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.replay import ReplayClock, parse_faults, serving
from cryptoalgo.data.simulate import simulate
from cryptoalgo.data.snapshots import latest
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey

from .verbs import say


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    "A replay exchange with perpetuals of two coins at two venues, funding and open interest, and a few faults."
    store, market = Store(tmp_path_factory.mktemp("venue") / "x.db"), simulate(SimulatorParams(days=120, start="2024-01-01"), ["BTC", "ETH"])
    for coin in ("BTC", "ETH"):
        symbol = f"{coin}USDT"
        for name in ("binanceusdm", "bybit"):
            store.upsert(SeriesKey("candles", name, symbol, "1h"), market.bars[coin].drop(columns="is_filled"), Provenance("x"))
            store.upsert(SeriesKey("funding", name, symbol), market.funding[coin], Provenance("x"))
        store.upsert(SeriesKey("open_interest", "bybit", symbol, "1h"), market.open_interest[coin], Provenance("x"))
    with serving(store, ReplayClock("2024-04-20 07:10", 0), parse_faults("missing=.2,disordered=.2,429=.03,retry_after=0")) as replay:
        yield replay, store


@pytest.fixture
def online(workbench, venue, monkeypatch):
    monkeypatch.setenv("CRYPTOALGO_EXCHANGE_BASE_URL", venue[0].url)
    return workbench


ASKED = ("ingest", "--symbols", "BTC,ETH", "--venue", "binanceusdm,bybit", "--since", "2024-01-01", "--include-oi")


def test_a_pull_from_the_command_line_equals_the_venue_and_a_second_finds_nothing(online, venue, capsys):
    code, out, err = say(capsys, *ASKED, "--json")
    answer = json.loads(out)
    assert code == 0 and [row["series"] for row in answer["files"]] == [
        "candles binanceusdm BTCUSDT 1h", "funding binanceusdm BTCUSDT", "open_interest bybit BTCUSDT 1h",
        "candles binanceusdm ETHUSDT 1h", "funding binanceusdm ETHUSDT", "open_interest bybit ETHUSDT 1h"]
    ours = Store(online.database_url)
    for key in ours.stored():
        theirs = venue[1].read(key)
        assert ours.read(key).equals(theirs[theirs["available_time"] <= "2024-04-20 07:10"])
    assert "rows" in err
    code, out, _ = say(capsys, *ASKED)
    assert code == 0 and "6 series loaded, 0 refused: 0 rows inserted" in out


def test_backfill_only_leaves_the_newest_alone_and_needs_a_beginning(online, capsys):
    code, out, _ = say(capsys, "ingest", "--symbols", "BTC", "--venue", "binanceusdm", "--since", "2024-03-01", "--until", "2024-03-10")
    assert code == 0
    store = Store(online.database_url)
    key = SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")
    assert [f"{store.read(key).index[i]:%m-%d %H}" for i in (0, -1)] == ["03-01 00", "03-10 23"]
    assert say(capsys, "ingest", "--symbols", "BTC", "--venue", "binanceusdm", "--since", "2024-02-01", "--backfill-only")[0] == 0
    assert [f"{store.read(key).index[i]:%m-%d %H}" for i in (0, -1)] == ["02-01 00", "03-10 23"]


def test_a_pair_that_no_venue_lists_is_named_and_skipped_when_asked_to(online, capsys):
    code, out, err = say(capsys, "ingest", "--symbols", "BTC,ADA", "--venue", "binanceusdm,bybit", "--since", "2024-04-01")
    assert code == 2 and out == "" and "no candles of ADAUSDT at binanceusdm, bybit" in err and "--skip-missing" in err and err.count("\n") == 1
    code, out, _ = say(capsys, "ingest", "--symbols", "BTC,ADA", "--venue", "binanceusdm,bybit", "--since", "2024-04-01", "--skip-missing")
    assert code == 0 and "left out: no candles of ADAUSDT" in out


def test_snapshots_from_the_command_line(online, capsys):
    code, out, _ = say(capsys, *ASKED, "--snapshot", "training", "--json")
    taken = json.loads(out)["snapshot"]
    snapshot = latest(online.home / "data" / "raw" / "training")
    assert code == 0 and taken["id"] == snapshot.id and taken["series"] == 6 and snapshot.verify() == []
    code, out, err = say(capsys, *ASKED, "--snapshot", "prediction")
    assert code == 2 and "a prediction is of one pair" in err
    code, out, err = say(capsys, "ingest", "--symbols", "BTC", "--venue", "binanceusdm", "--snapshot", "prediction", "--hours", "256", "--format", "json")
    shown = latest(online.home / "data" / "raw" / "prediction")
    bars = shown.read(SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h"))
    assert code == 0 and len(bars) > 2000 and "2024-04-20 06:00" in str(bars.index[-1])  # 256 hours and the warm-up of the features


@pytest.mark.parametrize(("args", "names"), [
    (["ingest", "--symbols", "BTC", "--pairs", "3"], "--symbols and --pairs"),
    (["ingest", "--pairs", "99"], "--pairs 99: from 1 to 20"),
    (["ingest", "--symbols", "BTC", "--since", "soon"], "'soon' is not a time"),
    (["ingest", "--symbols", "BTC", "--since", "2024-02-01", "--until", "2024-01-01"], "is not before"),
    (["ingest", "--symbols", "BTC", "--since", "2024-01-01", "--backfill-days", "3"], "give one of them"),
    (["ingest", "--symbols", "BTC", "--backfill-only"], "say how far"),
    (["ingest", "--symbols", "BTC", "--timeframes", "1x"], "timeframe '1x'"),
    (["ingest", "--symbols", "BTC", "--venue", "binanse"], "did you mean 'binance"),
    (["ingest", "--symbols", "BTC", "--venue", "binanceusdm", "--snapshot", "trainin"], "--snapshot trainin"),
    (["ingest", "--symbols", "BTC", "--format", "xml"], "--format xml"),
    (["replay-server", "--faults", "bogus=1"], "bogus"),
    (["replay-server"], "ingest"),
    (["preflight"], "name one"),
    (["preflight", "--from", "none.csv"], "no such file"),
    (["preflight", "params/issues/002-baseline.yaml", "--coins", "ADA"], "not in the issue"),
])
def test_wrong_words_are_one_line_and_exit_code_2(online, capsys, args, names):
    code, out, err = say(capsys, *args)
    assert code == 2 and names in err.splitlines()[-1] and err.splitlines()[-1].startswith("cryptoalgo: ") and "Traceback" not in err


def test_no_network_is_exit_code_3_and_one_line(workbench, capsys, monkeypatch):
    monkeypatch.setenv("CRYPTOALGO_EXCHANGE_BASE_URL", "http://127.0.0.1:9")
    code, out, err = say(capsys, "ingest", "--symbols", "BTC", "--venue", "binanceusdm")
    assert code == 3 and out == "" and err.count("\n") == 1 and "check the network and exchange_base_url" in err
    monkeypatch.setenv("CRYPTOALGO_EXCHANGE_BASE_URL", "ftp://x")
    code, _, err = say(capsys, "ingest", "--symbols", "BTC")
    assert code == 2 and "exchange_base_url" in err


@pytest.mark.data
def test_a_folder_names_what_it_lacks(workbench, data_dir, capsys):
    code, out, err = say(capsys, "ingest", "--from", data_dir, "--pairs", "20", "--timeframes", "1h")
    assert code == 2 and "no 1h bars of ADAUSDT, SUIUSDT, AVAXUSDT, LTCUSDT, APTUSDT, AAVEUSDT, XMRUSDT; leave them out, or add --skip-missing" in err
    code, out, err = say(capsys, "ingest", "--from", data_dir, "--symbols", "SOL,DOGE", "--timeframes", "15m,1h,4h", "--skip-missing", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["others"] == [f"{data_dir} has no 15m bars of DOGEUSDT"]
    made = [row["series"] for row in answer["files"] if row["file"] == "made from 1h bars"]
    assert made == ["candles binance DOGEUSDT 4h", "candles binance SOLUSDT 4h", "candles binanceusdm DOGEUSDT 4h", "candles binanceusdm SOLUSDT 4h"]

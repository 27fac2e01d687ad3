"""Good, mendable and hopeless data: three answers, every fix counted, every reason with its remedy."""

import json

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.simulate import simulate
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey
from cryptoalgo.workbench.cli import main
from cryptoalgo.workbench.preflight import BLOCKED, FIXED, OK, run_preflight

GOOD = simulate(SimulatorParams(days=600), ["BTC"]).bars["BTC"][["open", "high", "low", "close", "volume"]]


def ask(workbench, frame, tmp_path, **options):
    frame.to_parquet(tmp_path / "bars.parquet")
    return run_preflight(workbench, source=tmp_path / "bars.parquet", **options)


def test_good_bars_may_be_trained_on(workbench, tmp_path):
    report = ask(workbench, GOOD, tmp_path)
    assert (report.answer, report.exit_code) == (OK, 0) and report.findings[0].fixes == []
    assert "a fit of 10 trees" in report.findings[0].passed[-1] and "log loss" in report.findings[0].passed[-1]
    again = ask(workbench, GOOD, tmp_path)
    assert again.findings[0].passed == report.findings[0].passed  # the same loss


def test_mendable_bars_are_mended_on_a_copy_and_every_fix_is_counted(workbench, tmp_path):
    frame = pd.concat([GOOD.iloc[100:], GOOD.iloc[:100], GOOD.iloc[50:52]]).drop(GOOD.index[[700, 701, 900]])
    frame.iloc[20, 0] = np.nan
    report = ask(workbench, frame, tmp_path, out=tmp_path / "mended.csv")
    assert (report.answer, report.exit_code) == (FIXED, 0)
    assert [(f.what.split(",")[0], f.count) for f in report.findings[0].fixes] == [
        ("rows out of order", 102), ("rows that stood twice", 2), ("rows without open", 1), ("bars of holes up to 3 bars", 4)]
    mended = pd.read_csv(tmp_path / "mended.csv")
    assert len(mended) == len(GOOD) and mended["is_filled"].sum() == 4 and report.written == str(tmp_path / "mended.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "bars.parquet"), frame, check_freq=False)  # what was given is as it was


@pytest.mark.parametrize(("frame", "says"), [
    (GOOD.assign(close=GOOD["close"].where(np.arange(len(GOOD)) > 9_000)), "close is NaN on 63% of 14,400 rows; at most 50% may be"),
    (pd.concat([GOOD, GOOD.iloc[7:8] * 1.01]).sort_index(), "1 times have rows that differ"),
    (GOOD.drop(GOOD.index[5000:5100]), "100 hours are missing"),
    (GOOD.assign(low=GOOD["low"].where(np.arange(len(GOOD)) != 77, -1.0)), "low is -1"),
    (GOOD.assign(high=GOOD["high"].where(np.arange(len(GOOD)) != 77, np.inf)), "high is inf"),
    (GOOD.drop(columns="volume"), "column 'volume' is missing"),
    (GOOD.assign(volume="many"), "volume is 'many', which is not a number"),
    (GOOD.iloc[:500], "need 2,"),
    (GOOD.iloc[:6000], "days of bars"),
    (GOOD.set_axis(GOOD.index + pd.Timedelta("90s")), "off the grid of 1h"),
])
def test_hopeless_bars_are_blocked_with_the_reason(workbench, tmp_path, frame, says):
    report = ask(workbench, frame, tmp_path, out=tmp_path / "mended.parquet")
    assert (report.answer, report.exit_code, report.written) == (BLOCKED, 1, None)
    assert any(says in why for why in report.findings[0].blocks), report.findings[0].blocks
    assert all("; " in why for why in report.findings[0].blocks) and not (tmp_path / "mended.parquet").exists()


@pytest.mark.data
@pytest.mark.parametrize(("name", "says"), [
    ("LUNAUSDT-1h.parquet", "reused ticker"), ("FTTUSDT-1h.parquet", "7467 hours are missing"), ("TUSDUSDT-1h.parquet", "3995 hours are missing"),
    ("BTCUSDT-1h-holes.parquet", "73 hours are missing"), ("BTCUSDT-funding-two-exchanges.parquet", "column 'open' is missing"),
    ("BTCUSDT-oi-wrong-clock.parquet", "column 'open' is missing"), ("raw/SOLUSDT_1h-offset-0300.csv", "300 bars"), ("raw/BTCUSDT_15m-close-time-only.csv", "300 bars"),
])
def test_recorded_bad_files_are_named(workbench, data_dir, name, says):
    report = run_preflight(workbench, source=data_dir / "bad" / name)
    assert report.answer == BLOCKED and says in report.findings[0].blocks[0]


def test_three_pages_that_overlap_are_mended(workbench, data_dir, tmp_path):
    "The recorded file of three pages: what overlaps is equal, so sorting and dropping doubles is all; the rows are too few to train."
    report = run_preflight(workbench, source=data_dir / "bad/raw/BTCUSDT_15m-open_time_ms-crlf.csv")
    assert [f.what.split(",")[0] for f in report.findings[0].fixes][:1] == ["rows out of order"]
    assert report.findings[0].blocks and report.answer == BLOCKED


@pytest.fixture
def recorded_issue(workbench, issue_file):
    "An issue on stored series of BTC: candles, funding, open interest."
    store, market = Store(workbench.database_url), simulate(SimulatorParams(days=1100, start="2021-01-01"), ["BTC"])
    store.upsert(SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h"), market.bars["BTC"].drop(columns="is_filled"), Provenance("x"))
    store.upsert(SeriesKey("funding", "binanceusdm", "BTCUSDT"), market.funding["BTC"], Provenance("x"))
    store.upsert(SeriesKey("open_interest", "bybit", "BTCUSDT", "1h"), market.open_interest["BTC"], Provenance("x"))
    store.engine.dispose()
    return workbench.home / "params" / "issues" / "002-baseline.yaml"


def test_an_issue_on_stored_series(workbench, recorded_issue, capsys):
    code = main(["preflight", str(recorded_issue), "--coins", "BTC", "--json", ])
    out = json.loads(capsys.readouterr().out)
    assert code == 0 and out["answer"] == OK and [s["series"] for s in out["series"]] == ["candles binanceusdm BTCUSDT 1h"]
    assert not (workbench.home / "data" / "ledger.jsonl").exists()  # asking fixes no holdout


def test_what_is_not_stored_is_blocked_with_the_command(workbench, recorded_issue, capsys):
    code = main(["preflight", str(recorded_issue), "--coins", "BTC,ETH"])
    out, err = capsys.readouterr()
    assert code == 1 and out.startswith("BLOCKED") and "cryptoalgo ingest --venue binanceusdm,bybit --symbols ETH --timeframes 1h --since 2021-01-01 --include-oi`" in out


def test_missing_funding_or_open_interest_blocks(workbench, recorded_issue):
    "Never a zero: without the series, or a waiver, there is no training."
    store = Store(workbench.database_url)
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE series SET symbol = 'ETHUSDT' WHERE kind = 'funding'")
    store.engine.dispose()
    report = run_preflight(workbench, recorded_issue, coins=["BTC"])
    assert report.answer == BLOCKED and "no funding binanceusdm BTCUSDT is stored" in report.findings[0].blocks[0], report.findings


def test_wrong_questions(workbench, issue_file, tmp_path):
    for options, says in (({}, "name one"), ({"source": tmp_path / "none.csv"}, "no such file"), ({"issue": issue_file(), "coins": ["ADA"]}, "not in the issue")):
        with pytest.raises(InputError, match=says):
            run_preflight(workbench, **options)


def test_a_mended_file_keeps_its_flags_through_another_preflight(workbench, tmp_path):
    frame = GOOD.drop(GOOD.index[[700, 701]])
    first = ask(workbench, frame, tmp_path, out=tmp_path / "once.csv")
    again = run_preflight(workbench, source=tmp_path / "once.csv", out=tmp_path / "twice.csv")
    assert (again.answer, again.findings[0].fixes) == (FIXED, first.findings[0].fixes)
    assert (tmp_path / "twice.csv").read_bytes() == (tmp_path / "once.csv").read_bytes()


@pytest.mark.parametrize("name", ["bars.parquet", "link.parquet", "mended.db", "."])
def test_a_mended_file_takes_no_other_s_place(workbench, tmp_path, name):
    GOOD.to_parquet(tmp_path / "bars.parquet")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "bars.parquet")
    before = (tmp_path / "bars.parquet").read_bytes()
    with pytest.raises(InputError, match="--out"):
        run_preflight(workbench, source=tmp_path / "bars.parquet", out=tmp_path / name)
    assert (tmp_path / "bars.parquet").read_bytes() == before and not (tmp_path / "mended.db").exists()


def test_open_interest_that_begins_late_needs_a_waiver(workbench, recorded_issue):
    store = Store(workbench.database_url)
    with store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM open_interest WHERE event_time < 1622505600000")  # 2021-06-01
        connection.exec_driver_sql("UPDATE series SET first = 1622505600000, rows = (SELECT count(*) FROM open_interest) WHERE kind = 'open_interest'")
    store.engine.dispose()
    report = run_preflight(workbench, recorded_issue, coins=["BTC"])
    assert report.answer == BLOCKED and "open_interest of bybit BTCUSDT: stored from 2021-06-01" in report.findings[0].blocks[0]
    assert "--include-oi`" in report.findings[0].blocks[0]
    path = workbench.home / "params/contracts/open_interest.yaml"
    path.write_text(path.read_text() + "  - {rule: coverage, venue: bybit, symbol: BTCUSDT, from: 2018-01-01, to: 2021-06-01 00:00, granted: 2026-11-21,\n"
                    "     reason: begins late here}\n")
    report = run_preflight(workbench, recorded_issue, coins=["BTC"])
    assert report.answer == OK and any("begins late here" in w for w in report.findings[0].waivers), report.findings


def test_open_interest_that_is_not_there_blocks(workbench, recorded_issue):
    store = Store(workbench.database_url)
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE series SET symbol = 'ETHUSDT' WHERE kind = 'open_interest'")
    store.engine.dispose()
    report = run_preflight(workbench, recorded_issue, coins=["BTC"])
    assert report.answer == BLOCKED and "no open_interest bybit BTCUSDT" in report.findings[0].blocks[0], report.findings

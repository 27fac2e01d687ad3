"""One file is one transaction; a folder loads what may be believed and names the rest."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import to_ms
from cryptoalgo.core.errors import InputError, OutsideError
from cryptoalgo.data.sources import IngestReport, IngestRow, ingest_file, ingest_path, recognise, series_files
from cryptoalgo.data.store import Store
from cryptoalgo.data.tables import SeriesKey

from .conftest import make_bars

BTC = SeriesKey("candles", "binance", "BTCUSDT", "1h")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "db" / "trading.db")


@pytest.fixture
def folder(tmp_path, bars):
    for sub in ("ohlcv/binance", "ohlcv-perp/binance", "funding/binance", "bad", "options"):
        (tmp_path / "in" / sub).mkdir(parents=True)
    bars.to_parquet(tmp_path / "in/ohlcv/binance/BTCUSDT-1h.parquet")
    bars.to_csv(tmp_path / "in/ohlcv-perp/binance/BTCUSDT-1h.csv")
    pd.DataFrame({"funding_rate": 1e-4}, index=bars.index[::8]).to_parquet(tmp_path / "in/funding/binance/BTCUSDT.parquet")
    (tmp_path / "in/ohlcv/binance/notes.md").write_text("hello")
    return tmp_path / "in"


@pytest.mark.parametrize(("path", "key"), [
    ("ohlcv/binance/BTCUSDT-1h.parquet", SeriesKey("candles", "binance", "BTCUSDT", "1h")),
    ("ohlcv-perp/binance/BTCUSDT-1h.csv", SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")),
    ("ohlcv-15m/binance/BTCUSDT-15m.json", SeriesKey("candles", "binance", "BTCUSDT", "15m")),
    ("ohlcv/coinbase/BTCUSD-4h.feather", SeriesKey("candles", "coinbase", "BTCUSD", "4h")),
    ("funding/binance/SOLUSDT.parquet", SeriesKey("funding", "binanceusdm", "SOLUSDT")),
    ("open-interest/bybit/XRPUSDT-1h.parquet", SeriesKey("open_interest", "bybit", "XRPUSDT", "1h")),
    ("open-interest/binance/XRPUSDT-4h.parquet", SeriesKey("open_interest", "binanceusdm", "XRPUSDT", "4h")),
    ("open-interest/all-exchanges/BTC-1d.parquet", SeriesKey("open_interest", "all-exchanges", "BTC", "1d")),
    ("macro/VIX.parquet", SeriesKey("daily", "yahoo", "^VIX", "1d", True)),
    ("macro/DXY.parquet", SeriesKey("daily", "yahoo", "DX-Y.NYB", "1d", True)),
    ("equities/NVDA.parquet", SeriesKey("daily", "yahoo", "NVDA", "1d", True)),
    ("funding/more/ohlcv/binance/BTCUSDT-1h.csv", SeriesKey("candles", "binance", "BTCUSDT", "1h")),  # the nearest folder counts
])
def test_folder_and_name_say_whose_series(path, key):
    assert recognise(Path("/somewhere") / path) == key


@pytest.mark.parametrize(("path", "words"), [
    ("ohlcv/BTCUSDT-1h.csv", "one folder a venue"), ("ohlcv/binance/BTCUSDT.csv", "of which timeframe"),
    ("ohlcv/binance/my file.csv", "not SYMBOL-TIMEFRAME"), ("funding/of/my/life/BTCUSDT-1h.csv", "no folder above it says")])
def test_what_cannot_be_recognised_is_refused(path, words):
    with pytest.raises(InputError, match=words):
        recognise(Path(path))


def test_a_folder(folder, store, contracts):
    seen = []
    report = ingest_path(folder, store, contracts, seen.append)
    assert report.exit_code == 0 and [r.inserted for r in report.rows] == [48, 48, 6]
    assert report.others == ["bad", "ohlcv/binance/notes.md", "options"]
    assert seen == [p.name for p in series_files(folder)]
    assert store.stored() == [BTC, BTC._replace(venue="binanceusdm"), SeriesKey("funding", "binanceusdm", "BTCUSDT")]
    assert json.loads(json.dumps(report.to_dict()))["files"][0]["inserted"] == 48
    assert "102 rows inserted" in report.text() and "left out: bad" in report.text()


def test_a_refused_file_leaves_the_others(folder, store, contracts, bars):
    bars.assign(close=np.nan).to_parquet(folder / "ohlcv/binance/AAAUSDT-1h.parquet")
    (folder / "funding/binance/ETHUSDT.csv").write_text("")
    report = ingest_path(folder, store, contracts)
    assert report.exit_code == 2 and sum(r.inserted for r in report.rows) == 102
    refused = [r.refused for r in report.rows if r.refused]
    assert len(refused) == 2 and "close is NaN" in refused[0] and "the file is empty" in refused[1]
    assert len(store.stored()) == 3
    assert all(f"refused: {why}" in report.text() for why in refused)


def test_again_reads_nothing_and_a_sub_folder_is_enough(folder, store, contracts, monkeypatch):
    ingest_path(folder, store, contracts)
    monkeypatch.setattr("cryptoalgo.data.sources.read_parts", lambda path: pytest.fail(f"{path} was read again"))
    assert sum(r.unchanged for r in ingest_path(folder, store, contracts).rows) == 102
    assert len(ingest_path(folder / "funding", store, contracts).rows) == len(ingest_path(folder / "funding/binance", store, contracts).rows) == 1
    assert len(store.runs(BTC)) == 1


def test_a_changed_contract_is_a_reason_to_read_again(folder, store, contracts):
    path = folder / "ohlcv/binance/BTCUSDT-1h.parquet"
    ingest_file(path, store, contracts)
    stricter = {**contracts, "candles": contracts["candles"].model_copy(update={"max_high_low_ratio": {"*": 1.0001}})}
    with pytest.raises(InputError, match="high_low_ratio"):
        ingest_file(path, store, stricter)


def test_a_correction_is_a_revision(folder, store, contracts, bars):
    path = folder / "ohlcv/binance/BTCUSDT-1h.parquet"
    ingest_file(path, store, contracts)
    bars.assign(volume=bars["volume"].where(np.arange(48) != 7, 0.5)).to_parquet(path)
    row = ingest_file(path, store, contracts)
    assert (row.inserted, row.unchanged, row.revised, row.revised_times) == (0, 47, 1, ("2024-01-01 07:00",))
    assert "revised: candles binance BTCUSDT 1h: 1 rows, first 2024-01-01 07:00" in IngestReport([row]).text()


def test_waivers_come_back_also_when_nothing_is_read(folder, store, contracts, bars):
    path = folder / "ohlcv/binance/BTCUSDT-1h.parquet"
    shifted = bars.set_axis(bars.index + (pd.Timestamp("2018-02-07", tz="UTC") - bars.index[0]))
    outage = shifted[(shifted.index <= "2018-02-08 00:00+00:00") | (shifted.index >= "2018-02-08 12:00+00:00")]
    outage.to_parquet(path)
    first, again = ingest_file(path, store, contracts), ingest_file(path, store, contracts)
    assert first.waivers == again.waivers and "outage of Binance spot, 33 hours" in first.waivers[0]
    assert (first.inserted, again.inserted) == (len(outage), 0)
    assert store.waivers(BTC) == list(first.waivers)


def test_a_loose_file_is_recognised_or_named_by_the_user(tmp_path, store, contracts, bars):
    bars.to_csv(tmp_path / "BTC_USDT-1h-january.csv")
    assert ingest_file(tmp_path / "BTC_USDT-1h-january.csv", store, contracts).series == "candles unnamed BTCUSDT 1h"
    assert ingest_file(tmp_path / "BTC_USDT-1h-january.csv", store, contracts, BTC).series == "candles binance BTCUSDT 1h"
    pd.DataFrame({"funding_rate": 1e-4}, index=bars.index[::8]).to_csv(tmp_path / "ETHUSDT.csv")
    assert ingest_file(tmp_path / "ETHUSDT.csv", store, contracts).series == "funding unnamed ETHUSDT"
    bars[["volume"]].rename(columns={"volume": "turnover"}).to_csv(tmp_path / "X.csv")
    with pytest.raises(InputError, match="of no kind"):
        ingest_file(tmp_path / "X.csv", store, contracts)


def test_nothing_to_read_is_an_error(tmp_path, store, contracts):
    (tmp_path / "notes").mkdir()
    for path, words in ((tmp_path / "absent", "no such file or folder"), (tmp_path, "holds no files of series")):
        with pytest.raises(InputError, match=words):
            ingest_path(path, store, contracts)
    with pytest.raises(InputError, match="no such file"):
        ingest_file(tmp_path / "x.csv", store, contracts, BTC)


def test_the_disk_stops_the_folder_and_keeps_what_was_loaded(folder, tmp_path, contracts, monkeypatch):
    store, whole = Store(tmp_path / "x.db"), Store.ingest_whole

    def fail_on_funding(self, key, provenance):
        if key.kind == "funding":
            raise OutsideError("x.db: the disk is full")
        return whole(self, key, provenance)

    monkeypatch.setattr(Store, "ingest_whole", fail_on_funding)
    with pytest.raises(OutsideError, match="the disk is full"):
        ingest_path(folder, store, contracts)
    assert [k.kind for k in store.stored()] == ["candles", "candles"]


def test_rows_of_a_report_add_up_to_its_exit_code():
    assert IngestReport([IngestRow("a", inserted=1)]).exit_code == 0
    assert IngestReport([IngestRow("a"), IngestRow("b", refused="no")]).exit_code == 2


@pytest.mark.data
def test_all_recorded_data_is_loaded(recorded, data_dir, contracts):
    store, report = recorded
    assert [r.refused for r in report.rows if r.refused] == []
    assert report.exit_code == 0 and {"bad", "options"} <= set(report.others)
    for row in report.rows:
        stored, raw = store.read(recognise(Path(row.file))), pd.read_parquet(row.file).set_index("timestamp")
        assert len(stored) == row.inserted == len(raw)
        assert (to_ms(stored.index) == to_ms(pd.DatetimeIndex(raw.index))).all()
        for column in raw:
            np.testing.assert_array_equal(stored[column], raw[column], err_msg=f"{row.file} {column}")
        assert (stored["available_time"] >= stored.index).all()


@pytest.mark.data
def test_every_waiver_of_a_file_is_needed_by_the_recorded_data(recorded, contracts):
    _, report = recorded
    used = {waiver for row in report.rows for waiver in row.waivers}
    granted = {str(w) for c in contracts.values() for w in c.waivers if w.rule not in ("coverage", "same_venue")}
    assert granted == used


@pytest.mark.data
def test_every_waiver_of_coverage_ends_where_its_series_begins(recorded, contracts):
    store, _ = recorded
    for waiver in (w for w in contracts["open_interest"].waivers if w.rule == "coverage"):
        assert store.open_interest(waiver.venue, waiver.symbol, end=waiver.end).index.tolist() == [waiver.end]


# --- long files -------------------------------------------------------------------------------------------------------

def long_file(tmp_path, form, change=lambda bars: bars):
    "240 hourly bars, filed; Feather in batches of 50."
    path = tmp_path / "ohlcv" / "binance" / f"BTCUSDT-1h.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = change(make_bars(240)).rename_axis("timestamp").reset_index()
    {"parquet": table.to_parquet, "csv": lambda p: table.to_csv(p, index=False), "json": lambda p: table.to_json(p, orient="records", date_format="iso"),
     "feather": lambda p: table.to_feather(p, chunksize=50)}[form](path)
    return path


@pytest.mark.parametrize("form", ["parquet", "feather", "csv", "json"])
@pytest.mark.parametrize("part", [7, 50, 240])
def test_a_file_in_parts_is_the_file(tmp_path, contracts, monkeypatch, form, part):
    monkeypatch.setattr("cryptoalgo.data.files.PART", part)
    store = Store(tmp_path / "x.db")
    row = ingest_file(long_file(tmp_path, form), store, contracts)
    assert (row.inserted, row.unchanged, row.revised) == (240, 0, 0) and len(store.runs(SeriesKey("candles", "binance", "BTCUSDT", "1h"))) == 1
    pd.testing.assert_frame_equal(store.candles("binance", "BTCUSDT", "1h").drop(columns="available_time"), make_bars(240),
                                  check_freq=False, rtol=0 if form != "json" else 1e-9)


def jump(bars):
    bars = bars.copy()
    bars.iloc[100:, :4] *= 5
    return bars


@pytest.mark.parametrize(("change", "words"), [
    (lambda b: b.drop(b.index[100:120]), r"row 101 \(2024-01-06 00:00\): 20 hours are missing since 2024-01-05 03:00"),
    (lambda b: b.iloc[[*range(100), 99, *range(100, 239)]], r"row 101 .*stands twice"),
    (lambda b: b.iloc[[*range(100), 30, *range(100, 239)]], r"row 101 .*times must rise"),
    (jump, r"row 101 .*is a move by a factor of"),
    (lambda b: b.assign(volume=b["volume"].where(np.arange(240) != 217, -1)), r"row 218 .*volume is -1"),
])
@pytest.mark.parametrize("part", [100, 37])
def test_a_breach_at_the_border_of_two_parts_is_seen_and_nothing_is_kept(tmp_path, contracts, monkeypatch, change, words, part):
    monkeypatch.setattr("cryptoalgo.data.files.PART", part)
    store = Store(tmp_path / "x.db")
    with pytest.raises(InputError, match=words):
        ingest_file(long_file(tmp_path, "csv", change), store, contracts)
    assert store.stored() == []


def test_a_time_that_is_none_is_counted_from_the_beginning_of_the_file(tmp_path, contracts, monkeypatch):
    monkeypatch.setattr("cryptoalgo.data.files.PART", 50)
    path = long_file(tmp_path, "csv")
    lines = path.read_text().splitlines()
    lines[180] = lines[180].replace("2024-01-08", "soon")
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="BTCUSDT-1h.csv row 180: 'soon 11:00:00"):
        ingest_file(path, Store(tmp_path / "x.db"), contracts)


def test_bars_that_were_filled_in_are_not_stored_as_recorded(tmp_path, store, bars, contracts):
    path = tmp_path / "BTCUSDT-1h.parquet"
    bars.assign(is_filled=np.isin(np.arange(len(bars)), (7, 8))).to_parquet(path)
    with pytest.raises(InputError, match="row 8: is_filled is true for 2 bars"):
        ingest_file(path, store, contracts, BTC)
    assert store.series().empty
    bars.assign(is_filled=False).to_parquet(path)
    assert ingest_file(path, store, contracts, BTC).inserted == len(bars)

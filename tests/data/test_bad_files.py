"""Every recorded bad file is named for what it is, or loaded correctly; each test says which."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.data.files import read_file
from cryptoalgo.data.sources import ingest_file
from cryptoalgo.data.store import Store
from cryptoalgo.data.tables import SeriesKey

pytestmark = pytest.mark.data


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "trading.db")


@pytest.fixture
def refusal(data_dir, contracts, store):
    "`refusal(name, key, store)`: the one line with which a bad file is refused; what was stored is as before."
    def refuse(name, key, into=store):
        before = into.series() if into.stored() else None
        with pytest.raises(InputError) as e:
            ingest_file(data_dir / "bad" / name, into, contracts, key)
        assert before is None and not into.stored() or before is not None and before.equals(into.series())
        assert "\n" not in str(e.value)
        return str(e.value)
    return refuse


@pytest.fixture
def clean_copy(recorded, tmp_path):
    "A copy of the store of all recorded data that a test may write to."
    recorded[0].engine.dispose()
    shutil.copy(recorded[0].url.database, tmp_path / "copy.db")
    return Store(tmp_path / "copy.db")


def spot(symbol):
    return SeriesKey("candles", "binance", symbol, "1h")


PERP = SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")


def test_luna_is_named_a_reused_ticker(refusal):
    message = refusal("LUNAUSDT-1h.parquet", spot("LUNAUSDT"))
    assert "(2022-05-11 12:00)" in message and "reused ticker" in message and "close_ratio" in message and "1 of gap" in message


def test_ftt_is_named_for_its_hole(refusal):
    message = refusal("FTTUSDT-1h.parquet", spot("FTTUSDT"))
    assert "row 14134 (2023-09-22 08:00): 7467 hours are missing since 2022-11-15 04:00" in message and "delisted" in message


def test_tusd_is_named_for_its_hole(refusal):
    assert "3995 hours are missing since 2022-09-26 02:00" in refusal("TUSDUSDT-1h.parquet", spot("TUSDUSDT"))


def test_btc_with_holes_is_named_for_the_first_of_eight(refusal):
    message = refusal("BTCUSDT-1h-holes.parquet", spot("BTCUSDT"))
    assert "(2025-04-22 01:00): 73 hours are missing since 2025-04-18 23:00" in message and "7 of gap" in message


UNFINISHED = ["2026-03-23 08:00", "2026-03-23 14:00", "2026-03-24 15:00", "2026-03-25 07:00", "2026-03-25 08:00", "2026-03-25 09:00",
              "2026-03-25 11:00", "2026-03-25 13:00"]


def test_unfinished_bars_are_named_where_the_finished_ones_are_stored(refusal, recorded):
    message = refusal("BTCUSDT-perp-1h-unfinished-bars.parquet", PERP, recorded[0])
    assert "8 unfinished bars, saved while still forming" in message and all(t in message for t in UNFINISHED)


def test_unfinished_bars_alone_look_like_any_and_are_revised_by_the_finished(data_dir, contracts, store):
    "No rule on one file can tell a forming bar from a quiet hour; the clean file then brings exactly eight revisions."
    assert ingest_file(data_dir / "bad" / "BTCUSDT-perp-1h-unfinished-bars.parquet", store, contracts, PERP).inserted == 590
    row = ingest_file(data_dir / "ohlcv-perp/binance/BTCUSDT-1h.parquet", store, contracts)
    assert row.revised == 8 and list(row.revised_times) == UNFINISHED
    clean = pd.read_parquet(data_dir / "ohlcv-perp/binance/BTCUSDT-1h.parquet")
    np.testing.assert_array_equal(store.read(PERP)["close"], clean["close"])
    assert [f"{t:%Y-%m-%d %H:%M}" for t in store.revisions(PERP)["event_time"]] == UNFINISHED


OI = SeriesKey("open_interest", "binanceusdm", "BTCUSDT", "1h")


def test_open_interest_on_a_wrong_clock_is_named_beside_prices(refusal, recorded):
    message = refusal("BTCUSDT-oi-wrong-clock.parquet", OI, recorded[0])
    assert "wrong clock" in message and "last_price is 4.2% (median) away" in message and "shifted by -128 bars" in message


def test_open_interest_on_a_wrong_clock_is_named_for_its_zeros_without_prices(refusal):
    assert "(2024-05-16 09:00): open_interest is 0" in refusal("BTCUSDT-oi-wrong-clock.parquet", OI)


def test_funding_of_two_exchanges_is_named(refusal):
    message = refusal("BTCUSDT-funding-two-exchanges.parquet", SeriesKey("funding", "binanceusdm", "BTCUSDT"))
    assert "0.004 s after the row before" in message and "two feeds under one name" in message and "44 of spacing" in message


def same_as_stored(frame, stored, columns=("open", "high", "low", "close", "volume")):
    both = frame.index.intersection(stored.index)
    assert len(both) > 0
    for column in columns:
        np.testing.assert_array_equal(frame.loc[both, column], stored.loc[both, column])
    return len(both)


def test_local_times_with_their_offset_load_as_utc_over_the_end_of_summer_time(data_dir, contracts, clean_copy):
    path = data_dir / "bad/raw/SOLUSDT_1h-offset-0300.csv"
    row = ingest_file(path, clean_copy, contracts, PERP._replace(symbol="SOLUSDT"))
    assert (row.inserted, row.unchanged, row.revised) == (0, 300, 0)
    assert "+03:00" in path.read_text() and "+02:00" in path.read_text()


def test_a_file_of_close_times_loads_at_its_open_times(data_dir, contracts, clean_copy):
    row = ingest_file(data_dir / "bad/raw/BTCUSDT_15m-close-time-only.csv", clean_copy, contracts, SeriesKey("candles", "binance", "BTCUSDT", "15m"))
    assert (row.inserted, row.unchanged, row.revised) == (0, 300, 0)


CRLF = "BTCUSDT_15m-open_time_ms-crlf.csv"
BTC_15M = SeriesKey("candles", "binance", "BTCUSDT", "15m")


def test_epoch_milliseconds_and_crlf_are_read_and_the_disorder_is_named(data_dir, recorded, refusal):
    "The columns read exactly; the rows are three pages of a hundred that overlap, which is named."
    frame = read_file(data_dir / "bad/raw" / CRLF, "candles")
    stored = recorded[0].read(BTC_15M)
    for page in (frame.iloc[:100], frame.iloc[100:200], frame.iloc[200:]):
        assert same_as_stored(page.iloc[:-1], stored) == 99
    message = refusal("raw/" + CRLF, BTC_15M)
    assert "row 101 (2025-10-25 17:45)" in message and "sort the file" in message


def test_one_page_of_epoch_milliseconds_and_crlf_loads(data_dir, contracts, clean_copy, tmp_path):
    lines = (data_dir / "bad/raw" / CRLF).read_bytes().splitlines(keepends=True)
    (tmp_path / CRLF).write_bytes(b"".join(lines[:100]))
    row = ingest_file(tmp_path / CRLF, clean_copy, contracts, BTC_15M)
    assert (row.inserted, row.unchanged, row.revised) == (0, 99, 0)


def test_byte_order_mark_and_dotted_dates_load(data_dir, contracts, clean_copy):
    row = ingest_file(data_dir / "bad/raw/BTC_open_interest-bom-dotted-dates.csv", clean_copy, contracts,
                      SeriesKey("open_interest", "all-exchanges", "BTC", "1d"))
    assert (row.inserted, row.unchanged, row.revised) == (0, 2063, 0)


def test_an_unfinished_last_bar_is_named_beside_the_finished_one(refusal, recorded):
    message = refusal("raw/SOLUSDT-epoch-ms-unfinished-last-bar.csv", PERP._replace(symbol="SOLUSDT"), recorded[0])
    assert "row 300 (2026-03-19 20:00)" in message and "an unfinished bar" in message


def test_epoch_milliseconds_without_a_last_newline_are_read(data_dir, recorded):
    frame = read_file(data_dir / "bad/raw/SOLUSDT-epoch-ms-unfinished-last-bar.csv", "candles")
    assert same_as_stored(frame.iloc[:-1], recorded[0].candles("binanceusdm", "SOLUSDT", "1h")) == 299
    assert to_ms(frame.index[-1:])[0] == 1_773_950_400_000


def test_yahoo_order_loads_by_name_and_is_not_the_adjusted_series(data_dir, contracts, clean_copy):
    path, raw = data_dir / "bad/raw/SPY-yahoo-order.csv", SeriesKey("daily", "yahoo", "SPY", "1d", adjusted=False)
    assert ingest_file(path, clean_copy, contracts).series == str(raw)
    stored = clean_copy.read(raw)
    assert len(stored) == 300 and stored["open"].iloc[0] == 183.97999572753906
    assert stored["available_time"].iloc[0] == pd.Timestamp("2014-01-02 21:00", tz="UTC")
    assert clean_copy.daily("SPY").index[0] == pd.Timestamp("2015-01-02", tz="UTC")


def test_the_last_row_of_another_instrument_is_named(refusal):
    message = refusal("raw/TLT-last-row-of-another-instrument.csv", SeriesKey("daily", "yahoo", "TLT", "1d"))
    assert "row 60 (2026-03-26 00:00): close 27.17" in message and "another instrument's row" in message


def test_every_bad_file_has_a_test(data_dir):
    names = {p.name for p in (data_dir / "bad").rglob("*") if p.is_file()}
    text = open(__file__).read()
    assert names and not [n for n in names if n not in text]


def test_times_of_bars_are_exact_milliseconds(data_dir):
    frame = read_file(data_dir / "bad/raw/BTCUSDT_15m-close-time-only.csv", "candles")
    assert frame.index.equals(from_ms(1_704_063_600_000 + np.arange(300) * 900_000))

"""Idempotent, revisable, whole or not at all; what the disk says becomes one line."""

import itertools
import sqlite3

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import InputError, OutsideError
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey

from .conftest import make_bars

KEY = SeriesKey("candles", "binance", "BTCUSDT", "1h")
NUMBERS = itertools.count()
FILE = Provenance("BTCUSDT-1h.csv", digest="5e1f", waivers=("gap of binance",))


def known(frame):
    return frame.assign(available_time=from_ms(to_ms(frame.index) + 3_600_000))


def test_round_trip_is_exact(store, bars):
    store.upsert(KEY, known(bars), FILE)
    pd.testing.assert_frame_equal(store.candles("binance", "BTCUSDT", "1h"), known(bars), check_freq=False)


def test_twice_is_once(store, bars):
    assert store.upsert(KEY, known(bars), FILE)[:3] == (48, 0, 0)
    assert store.upsert(KEY, known(bars), FILE)[:3] == (0, 48, 0)
    assert len(store.revisions(KEY)) == 0
    assert list(store.runs(KEY)["inserted"]) == [48, 0]
    assert store.last_run(KEY).digest == "5e1f" and store.runs(KEY)["waivers"].iloc[0] == ["gap of binance"]


def test_a_changed_value_is_a_revision_with_both_ingests(store, bars):
    store.upsert(KEY, known(bars), FILE)
    changed = bars.copy()
    changed.iloc[17, 4] += 2.5
    result = store.upsert(KEY, known(changed), FILE._replace(digest="77aa"))
    assert result[:3] == (0, 47, 1) and list(result.revised_times) == [bars.index[17]]
    revision = store.revisions(KEY).iloc[0]
    runs = store.runs(KEY)
    assert revision["event_time"] == bars.index[17]
    assert revision["old_values"]["volume"] == bars["volume"].iloc[17] and revision["new_values"]["volume"] == changed["volume"].iloc[17]
    assert (runs.loc[revision["old_run_id"], "digest"], runs.loc[revision["new_run_id"], "digest"]) == ("5e1f", "77aa")
    assert store.candles("binance", "BTCUSDT", "1h")["volume"].iloc[17] == changed["volume"].iloc[17]


def test_missing_values_stay_nan_and_equal_themselves(store, bars):
    key = SeriesKey("open_interest", "bybit", "BTCUSDT", "1h")
    frame = known(pd.DataFrame({"open_interest": np.where(np.arange(48) % 5 == 0, np.nan, 7.0)}, index=bars.index))
    store.upsert(key, frame, FILE)
    assert store.upsert(key, frame, FILE)[:3] == (0, 48, 0)
    stored = store.open_interest("bybit", "BTCUSDT")
    np.testing.assert_array_equal(stored["open_interest"], frame["open_interest"])
    assert stored["open_interest_value"].isna().all()


def test_series_do_not_blend(store, bars):
    for key, factor in ((KEY, 1.0), (KEY._replace(venue="coinbase"), 2.0), (KEY._replace(timeframe="15m"), 3.0), (KEY._replace(symbol="ETHUSDT"), 4.0),
                        (SeriesKey("daily", "yahoo", "SPY", "1d"), 5.0), (SeriesKey("daily", "yahoo", "SPY", "1d", True), 6.0)):
        assert store.upsert(key, known(bars * factor), FILE).inserted == 48
        assert store.read(key)["close"].iloc[0] == bars["close"].iloc[0] * factor
    assert len(store.series()) == len(store.stored()) == 6
    assert store.daily("SPY")["close"].iloc[0] == bars["close"].iloc[0] * 6
    assert store.daily("SPY", adjusted=False)["close"].iloc[0] == bars["close"].iloc[0] * 5


def test_bounds_are_included_and_a_day_is_a_whole_day(store, bars):
    store.upsert(KEY, known(bars), FILE)

    def rows(start, end):
        return len(store.candles("binance", "BTCUSDT", "1h", start, end))

    assert rows("2024-01-01", "2024-01-01") == 24
    assert rows("2024-01-01 03:00", pd.Timestamp("2024-01-01 05:00", tz="UTC")) == 3
    assert rows(None, None) == 48 and rows("2030-01-01", None) == 0
    with pytest.raises(InputError, match="'soon' is not a time"):
        rows("soon", None)


@given(batches=st.lists(st.dictionaries(st.integers(0, 15), st.integers(0, 2), min_size=1), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_upserts_ends_as_a_dictionary_would(store, batches):
    key, model, revisions = SeriesKey("funding", "bybit", f"COIN{next(NUMBERS)}"), {}, 0
    for batch in batches:
        hours = np.array(sorted(batch))
        frame = known(pd.DataFrame({"funding_rate": [batch[h] * 1e-4 for h in hours]}, index=from_ms(hours * 3_600_000)))
        result = store.upsert(key, frame, FILE)
        assert (result.inserted, result.revised) == (len(batch.keys() - model.keys()), sum(h in model and model[h] != v for h, v in batch.items()))
        revisions += result.revised
        model.update(batch)
    stored = store.read(key)
    assert dict(zip((to_ms(stored.index) // 3_600_000).tolist(), stored["funding_rate"].tolist())) == {h: v * 1e-4 for h, v in model.items()}
    row = store.series().set_index("symbol").loc[key.symbol]
    assert (row["rows"], row["first"], row["last"]) == (len(model), stored.index[0], stored.index[-1])
    assert len(store.revisions(key)) == revisions


@pytest.mark.parametrize(("read", "words"), [
    (lambda s: s.candles("binance", "BTCUSD", "1h"), "did you mean 'BTCUSDT'"),
    (lambda s: s.candles("binanse", "BTCUSDT", "1h"), "did you mean 'binance'"),
    (lambda s: s.candles("binance", "BTCUSDT", "2h"), "unknown timeframe '2h' .known: 1h.; ingest it .`cryptoalgo ingest --timeframes 2h`"),
    (lambda s: s.funding("binanceusdm", "BTCUSDT"), "no funding binanceusdm BTCUSDT is stored"),
    (lambda s: s.daily("SPY", adjusted=False), "unknown"),
])
def test_an_unknown_series_is_answered_with_the_nearest(store, bars, read, words):
    store.upsert(KEY, known(bars), FILE)
    with pytest.raises(InputError, match=words):
        read(store)


def test_reading_creates_nothing(tmp_path):
    store = Store(tmp_path / "none" / "x.db")
    assert store.stored() == [] and store.last_run(KEY) is None
    with pytest.raises(InputError, match="holds no market data"):
        store.series()
    assert not (tmp_path / "none").exists()


def test_no_database_can_be_made_below_a_file(tmp_path, bars):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutsideError, match="file is in the way"):
        Store(tmp_path / "file" / "x.db").upsert(KEY, known(bars), FILE)


def test_a_folder_that_may_not_be_written_to(tmp_path, bars, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(OutsideError, match=r"x\.db: its folder may not be written to"):
        Store(tmp_path / "locked" / "x.db").upsert(KEY, known(bars), FILE)


def test_a_read_only_database_is_named_and_kept(sqlite_store, bars):
    store = sqlite_store
    store.upsert(KEY, known(bars), FILE)
    sa.event.listen(store.engine, "connect", lambda c, _: c.execute("PRAGMA query_only=ON"))
    store.engine.dispose()
    with pytest.raises(OutsideError, match="may not be written to"):
        store.upsert(KEY, known(bars * 2), FILE)


def test_a_full_disk_leaves_the_database_as_it_was(sqlite_store, bars):
    store = sqlite_store
    store.upsert(KEY, known(bars), FILE)
    before = store.candles("binance", "BTCUSDT", "1h")
    pages = sqlite3.connect(store.url.database).execute("PRAGMA page_count").fetchone()[0]
    sa.event.listen(store.engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count={pages + 2}"))
    store.engine.dispose()
    with pytest.raises(OutsideError, match="the disk is full; nothing was stored"):
        store.upsert(KEY, known(make_bars(20_000) * 2), FILE)
    pd.testing.assert_frame_equal(store.candles("binance", "BTCUSDT", "1h"), before)
    assert len(store.runs(KEY)) == 1 and len(store.revisions(KEY)) == 0


@pytest.mark.parametrize("damage", ["text", "header", "truncated"])
def test_a_corrupt_database_is_named_and_not_touched(tmp_path, bars, damage):
    path = tmp_path / "x.db"
    writer = Store(path)
    writer.upsert(KEY, known(make_bars(5000)), FILE)
    writer.engine.dispose()
    content = path.read_bytes()
    path.write_bytes({"text": b"no database at all\n" * 400, "header": b"\0" * 100 + content[100:], "truncated": content[:20_480]}[damage])
    before = path.read_bytes()
    with pytest.raises(OutsideError, match=r"x\.db: the file is (not a database|damaged)"):
        Store(path).upsert(KEY, known(make_bars(5000) * 2), FILE)
    assert path.read_bytes() == before


def test_another_writer_is_waited_for_then_named(sqlite_store, bars):
    store = sqlite_store
    store.upsert(KEY, known(bars), FILE)
    other = sqlite3.connect(store.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutsideError, match="another process is writing"):
        Store(store.url.database, wait_s=0.05).upsert(KEY, known(bars * 2), FILE)
    assert len(store.candles("binance", "BTCUSDT", "1h")) == 48  # readers do not wait
    other.execute("ROLLBACK")
    assert store.upsert(KEY, known(bars * 2), FILE).revised == 48


def test_an_interrupted_upsert_leaves_nothing(store, bars, monkeypatch):
    store.upsert(KEY, known(bars), FILE)
    monkeypatch.setattr("cryptoalgo.data.store.revise_rows", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.upsert(KEY, known(make_bars(60) * 2), FILE)
    assert len(store.candles("binance", "BTCUSDT", "1h")) == 48 and len(store.runs(KEY)) == 1


def test_a_url_that_is_none_is_named():
    with pytest.raises(InputError, match="database URL 'mydb://x'"):
        Store("mydb://x")


# --- pages ------------------------------------------------------------------------------------------------------------

def test_the_pages_of_a_download_are_one_run_and_stay_when_a_later_one_fails(store):
    bars = known(make_bars(90))
    with pytest.raises(ZeroDivisionError), store.ingest(KEY, FILE) as write:
        assert write(bars.iloc[:40], ("first",))[:3] == (40, 0, 0)
        assert write(bars.iloc[30:60], ("second",))[:3] == (20, 10, 0)
        raise ZeroDivisionError
    assert len(store.read(KEY)) == 60 and store.times(KEY).tolist() == to_ms(bars.index[:60]).tolist()
    run = store.runs(KEY)
    assert len(run) == 1 and run.iloc[0][["inserted", "unchanged", "revised"]].tolist() == [60, 10, 0]
    assert run.iloc[0]["waivers"] == ["gap of binance", "first", "second"]


def test_a_page_that_failed_may_be_written_again_under_the_same_run(store, monkeypatch):
    bars = known(make_bars(90))
    with store.ingest(KEY, FILE) as write:
        with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
            broken.setattr("cryptoalgo.data.store.insert_rows", lambda *a: 1 / 0)
            write(bars.iloc[:40])
        store.upsert(KEY._replace(symbol="ETHUSDT"), bars.iloc[:7], FILE)
        write(bars.iloc[:40])
    assert store.runs(KEY)["inserted"].tolist() == [40] and store.runs(KEY._replace(symbol="ETHUSDT"))["inserted"].tolist() == [7]


def test_a_password_is_never_shown():
    with pytest.raises(InputError) as e:
        Store("postgresql://u:SECRET@host:abc/db")
    assert "SECRET" not in str(e.value) and "***" in str(e.value)


def test_a_run_that_writes_nothing_leaves_nothing(store, bars):
    with store.ingest(KEY, FILE):
        pass
    assert store.stored() == [] and len(store.times(KEY)) == 0
    store.upsert(KEY._replace(symbol="ETHUSDT"), known(bars), FILE)
    assert len(store.times(KEY)) == 0


def test_a_file_in_parts_is_whole_or_nothing(store):
    bars = known(make_bars(90))
    with pytest.raises(ZeroDivisionError), store.ingest_whole(KEY, FILE) as write:
        write(bars.iloc[:40])
        write(bars.iloc[40:])
        raise ZeroDivisionError
    assert len(store.times(KEY)) == 0
    with store.ingest_whole(KEY, FILE) as write:
        write(bars.iloc[:40])
        write(bars.iloc[40:])
    assert len(store.read(KEY)) == 90 and store.runs(KEY)["inserted"].tolist() == [90]


def test_pages_before_the_first_row_move_the_beginning(store):
    bars = known(make_bars(90))
    with store.ingest(KEY, FILE) as write:
        write(bars.iloc[60:])
        write(bars.iloc[:30])
    row = store.series().iloc[0]
    assert (row["first"], row["last"], row["rows"]) == (bars.index[0], bars.index[-1], 60)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

def test_what_is_missing_is_null_in_either_database(store, bars):
    key = SeriesKey("open_interest", "bybit", "BTCUSDT", "1h")
    store.upsert(key, known(pd.DataFrame({"open_interest": 7.0}, index=bars.index)), FILE)
    with store.reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM open_interest WHERE open_interest_value IS NULL")).scalar() == 48


@pytest.mark.parametrize(("change", "words"), [
    (lambda u: u.set(database="nowhere"), "no such database; create it with createdb"),
    (lambda u: u.set(username="nobody"), "no such user"),
    (lambda u: u.set(port=9), "no database server answers there"),
    (lambda u: u.set(host="no.such.host.invalid"), "no such host"),
])
def test_a_server_that_does_not_let_us_in_is_one_line(postgres, bars, change, words):
    url = change(sa.make_url(postgres())).render_as_string(hide_password=False)
    with pytest.raises(OutsideError, match=words) as e:
        Store(url).upsert(KEY, known(bars), FILE)
    assert "\n" not in str(e.value)


def test_either_name_of_postgresql_will_do(postgres, bars):
    for name in ("postgres://", "postgresql://", "postgresql+psycopg://"):
        store = Store(postgres().replace("postgresql://", name))
        assert store.upsert(KEY, known(bars), FILE).inserted == 48
        store.engine.dispose()


def test_a_sound_database_has_no_findings_and_a_lost_row_is_one(store, bars):
    store.upsert(KEY, known(bars), FILE)
    store.upsert(KEY._replace(symbol="ETHUSDT"), known(bars), FILE)
    assert store.check() == []
    with store.writing() as connection:
        connection.execute(sa.text("DELETE FROM candles WHERE event_time = (SELECT max(event_time) FROM candles) AND series_id = 1"))
    assert len(store.check()) == 1 and "candles binance BTCUSDT 1h holds 47 rows from" in store.check()[0] and "on account are 48 rows" in store.check()[0]


def test_a_damaged_file_is_found_by_the_check(sqlite_store):
    sqlite_store.upsert(KEY, known(make_bars(5000)), FILE)
    sqlite_store.engine.dispose()
    path = sqlite_store.url.database
    with sqlite3.connect(path) as c:
        c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(open(path, "rb").read())
    content[len(content) // 2: len(content) // 2 + 4096] = b"\xff" * 4096
    open(path, "wb").write(content)
    try:
        found = Store(path).check()
    except OutsideError as e:
        found = [str(e)]
    assert found and "trading.db" in found[0]


def test_the_same_frame_again_is_known_and_another_run_in_between_is_not_forgotten(store):
    bars, plain = known(make_bars(90)), Provenance("by hand")
    store.upsert(KEY, bars, plain)
    assert store.upsert(KEY, bars, plain)[:3] == (0, 90, 0) and store.runs(KEY)["unchanged"].tolist() == [0, 90]
    changed = bars.copy()
    changed.iloc[5, 3] *= 1.0001
    assert store.upsert(KEY, changed, plain).revised == 1
    assert store.upsert(KEY, bars, plain).revised == 1  # not taken for the run before last
    pd.testing.assert_frame_equal(store.read(KEY), bars, check_freq=False, check_exact=True)
    assert store.check() == []

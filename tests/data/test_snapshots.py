"""A snapshot is written once, whole or not at all, and no byte of it can change unseen."""

import json
import multiprocessing
import os
import signal
import stat
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import GateError, InputError, OutsideError
from cryptoalgo.data import snapshots
from cryptoalgo.data.snapshots import latest, list_snapshots, series_of, shown_stretch, take
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey

from .conftest import make_bars

HOUR = 3_600_000
BARS = SeriesKey("candles", "binance", "BTCUSDT", "1h")
FUNDING = SeriesKey("funding", "binanceusdm", "BTCUSDT")
INTEREST = SeriesKey("open_interest", "bybit", "BTCUSDT", "1h")


def filled(path, n=400):
    "A store of bars, settlements and open interest without a value in quote currency."
    store = Store(path)
    bars = make_bars(n)
    store.upsert(BARS, bars.assign(available_time=from_ms(to_ms(bars.index) + HOUR)), Provenance("bars"))
    stamps = bars.index[::8]
    store.upsert(FUNDING, pd.DataFrame({"funding_rate": np.linspace(-1e-4, 1e-4, len(stamps)), "available_time": stamps}, index=stamps), Provenance("f"))
    store.upsert(INTEREST, pd.DataFrame({"open_interest": np.arange(n) + 0.1, "available_time": bars.index}, index=bars.index), Provenance("oi"))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("store") / "trading.db")


@pytest.fixture(scope="module")
def taken(store, tmp_path_factory):
    return take(store, [BARS, FUNDING, INTEREST], tmp_path_factory.mktemp("raw") / "training")


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_every_series_comes_back_to_the_bit(store, tmp_path, form):
    snapshot = take(store, [BARS, FUNDING, INTEREST], tmp_path, form=form)
    assert set(snapshot.keys) == {BARS, FUNDING, INTEREST} and snapshot.verify() == []
    for key in snapshot.keys:
        pd.testing.assert_frame_equal(snapshot.read(key), store.read(key), check_exact=True, check_freq=False)
    assert snapshot.read(INTEREST)["open_interest_value"].isna().all()


def test_every_file_and_folder_is_read_only(taken):
    modes = [stat.S_IMODE(p.stat().st_mode) for p in [taken.path, *taken.path.rglob("*")]]
    assert set(modes) == {0o444, 0o555}


@given(where=st.floats(0, 1, exclude_max=True), which=st.integers(0, 8), flip=st.integers(1, 255))
@settings(max_examples=120, deadline=None)
def test_every_changed_byte_is_found_and_its_file_named(taken, where, which, flip):
    files = sorted(p for p in taken.path.rglob("*") if p.is_file())
    victim = files[which % len(files)]
    good, at = victim.read_bytes(), int(where * victim.stat().st_size)
    bad = bytearray(good)
    bad[at] ^= flip
    os.chmod(victim, 0o644)
    try:
        victim.write_bytes(bad)
        os.chmod(victim, 0o444)
        found = snapshots.Snapshot(taken.path).verify()
        if victim.name == "manifest.json" and json_equal(good, bad):
            return  # white space: nothing that the manifest says
        assert len(found) == 1 and str(victim) in found[0]
    finally:
        os.chmod(victim, 0o644)
        victim.write_bytes(good)
        os.chmod(victim, 0o444)
    assert snapshots.Snapshot(taken.path).verify() == []


def json_equal(good, bad):
    try:
        return json.loads(good) == json.loads(bytes(bad))
    except (ValueError, KeyError):
        return False


def test_a_change_is_named_by_its_block(tmp_path_factory, tmp_path):
    store = filled(tmp_path_factory.mktemp("long") / "trading.db", 600)
    snapshot = take(store, [BARS], tmp_path, form="json")
    victim = snapshot.path / snapshot.keys[BARS]
    size = victim.stat().st_size
    os.chmod(victim, 0o644)
    data = bytearray(victim.read_bytes())
    assert size > snapshots.BLOCK
    data[-3] ^= 1
    victim.write_bytes(data)
    with pytest.raises(GateError, match=rf"BTCUSDT-1h.json: was changed between byte 65,536 and byte {size - 1:,}"):
        snapshots.Snapshot(snapshot.path).read(BARS)
    with pytest.raises(GateError, match="was changed .* move .* away"):
        take(store, [BARS], tmp_path, form="json")


def test_missing_foreign_and_longer_files_are_named(store, tmp_path):
    snapshot = take(store, [BARS, FUNDING], tmp_path)
    for path in [snapshot.path, *snapshot.path.rglob("*")]:
        os.chmod(path, 0o755)
    (snapshot.path / snapshot.keys[FUNDING]).unlink()
    with open(snapshot.path / snapshot.keys[BARS], "ab") as f:
        f.write(b"more")
    (snapshot.path / "notes.txt").write_text("mine")
    found = "\n".join(snapshot.verify())
    assert "BTCUSDT.parquet: is missing" in found and "were written" in found and "notes.txt: does not belong" in found
    assert "may be written to" in found


def test_the_same_data_is_the_same_snapshot_and_other_data_another(tmp_path):
    store = filled(tmp_path / "a.db", 300)
    first = take(store, [BARS], tmp_path / "raw")
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}
    assert take(filled(tmp_path / "b.db", 300), [BARS], tmp_path / "raw").path == first.path
    bars = make_bars(301)
    store.upsert(BARS, bars.assign(available_time=from_ms(to_ms(bars.index) + HOUR)), Provenance("later"))
    second = take(store, [BARS], tmp_path / "raw")
    assert second.path != first.path and latest(tmp_path / "raw").id == second.id
    assert [s.id for s in list_snapshots(tmp_path / "raw")] == [first.id, second.id]
    assert {p: p.stat().st_mtime_ns for p in first.path.rglob("*")} == before and len(first.read(BARS)) == 300


def test_a_later_revision_in_the_database_leaves_the_snapshot_alone(tmp_path):
    store = filled(tmp_path / "a.db", 300)
    snapshot = take(store, [BARS], tmp_path / "raw")
    old = snapshot.read(BARS)
    store.upsert(BARS, old.iloc[5:6].assign(close=old["close"].iloc[5] * 1.0001), Provenance("revised"))
    pd.testing.assert_frame_equal(snapshots.Snapshot(snapshot.path).read(BARS), old)
    again = take(store, [BARS], tmp_path / "raw")
    assert again.id != snapshot.id and json.loads((again.path / "qa/candles/binance/BTCUSDT-1h.json").read_text())["revisions"] == 1


def _slowly(path, folder):
    store = Store(path)
    take(store, [BARS, FUNDING, INTEREST], folder, progress=lambda text: time.sleep(0.05))


def test_a_killed_process_leaves_no_snapshot_and_its_leftovers_are_cleared(store, tmp_path):
    fork = multiprocessing.get_context("fork")
    for delay in (0.02, 0.08, 0.13):
        process = fork.Process(target=_slowly, args=(store.url.database, tmp_path))
        process.start()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert list_snapshots(tmp_path) == []
    snapshot = take(store, [BARS, FUNDING, INTEREST], tmp_path)
    assert snapshot.verify() == [] and [p.name for p in tmp_path.iterdir()] == [snapshot.id]


def test_the_account_beside_each_series(taken):
    qa = json.loads((taken.path / "qa/funding/binanceusdm/BTCUSDT.json").read_text())
    assert (qa["rows"], qa["missing_bars"], qa["timeframe"]) == (50, 0, "8h")
    table = pd.read_csv(taken.path / "qa/candles/binance/BTCUSDT-1h.csv")
    assert dict(zip(table["item"], table["value"]))["rows"] == "400"


def test_what_a_prediction_needs(store):
    last = store.read(BARS).index[-1]
    first, end = shown_stretch(last, 256, 100, "1h")
    assert end == last and len(store.read(BARS, first, end)) == 356
    for hours in (255, 513):
        with pytest.raises(InputError, match=f"--hours {hours}: from 256 to 512"):
            shown_stretch(last, hours, 0, "1h")


def test_series_by_pair_and_ticker(store):
    assert series_of(store.stored(), ["BTCUSDT"]) == sorted([BARS, FUNDING, INTEREST])
    with pytest.raises(InputError, match=r"ADAUSDT, SPY: no 1h or daily bars are stored"):
        series_of(store.stored(), ["BTCUSDT", "ADAUSDT"], ["SPY"])


def test_refusals(store, tmp_path):
    with pytest.raises(InputError, match="a snapshot of nothing"):
        take(store, [], tmp_path)
    with pytest.raises(InputError, match="no snapshot yet"):
        latest(tmp_path)
    with pytest.raises(InputError, match="nothing is stored between"):
        take(store, [BARS], tmp_path, start="2030-01-01")
    with pytest.raises(InputError, match="does not hold"):
        take(store, [BARS], tmp_path).read(FUNDING)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError):
        take(store, [BARS], tmp_path / "file")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".taking")]


def test_what_is_published_beside_the_bars_begins_before_them(store, tmp_path):
    "The settlement before the first bar is still the current one at it."
    snapshot = take(store, [BARS, FUNDING], tmp_path, start="2024-01-05 03:00")
    assert snapshot.read(BARS).index[0] == pd.Timestamp("2024-01-05 03:00", tz="UTC")
    assert snapshot.read(FUNDING).index[0] <= pd.Timestamp("2024-01-05 00:00", tz="UTC")


def test_two_processes_that_take_the_same_get_the_same(store, tmp_path):
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=take, args=(Store(store.url.database), [BARS, FUNDING], tmp_path)) for _ in range(4)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0] * 4
    assert len(list_snapshots(tmp_path)) == 1 and latest(tmp_path).verify() == [] and len(list(tmp_path.iterdir())) == 1

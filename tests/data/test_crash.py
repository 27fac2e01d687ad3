"""Killed at any moment, resumed, and what is stored is what an undisturbed run stores. Two may write at once."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.data.contracts import load_contracts
from cryptoalgo.data.sources import ingest_file
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey

from .conftest import CONTRACTS, make_bars

FORK = multiprocessing.get_context("fork")
HOUR = 3_600_000
PAGED = SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")
FILES = {name: SeriesKey("candles", "binance", name, "1h") for name in ("ETHUSDT", "SOLUSDT")}
PAGE, PAGES = 150, 20


def known(frame):
    return frame.assign(available_time=from_ms(to_ms(frame.index) + HOUR))


BARS = known(make_bars(PAGE * PAGES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Two files of bars, filed as ingest expects them."
    place = tmp_path_factory.mktemp("files") / "ohlcv" / "binance"
    place.mkdir(parents=True)
    for seed, name in enumerate(FILES):
        make_bars(3_000, seed=seed).rename_axis("timestamp").reset_index().to_parquet(place / f"{name}-1h.parquet")
    return place


def load(url, folder):
    "What a user's command does: pages from the last stored row on, then files."
    store, contracts = Store(url), load_contracts(CONTRACTS)
    times = store.times(PAGED)
    start = max(0, np.searchsorted(to_ms(BARS.index), times[-1]) - 12) if len(times) else 0
    with store.ingest(PAGED, Provenance("venue")) as write:
        for at in range(start, len(BARS), PAGE):
            write(BARS.iloc[at:at + PAGE])
    for name in FILES:
        ingest_file(folder / f"{name}-1h.parquet", store, contracts)
    store.engine.dispose()


def run(target, *args):
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def state(url):
    "Everything that is stored, runs apart."
    store = Store(url)
    rows = {str(key): store.read(key) for key in store.stored()}
    series, revisions = store.series(), sum(len(store.revisions(key)) for key in store.stored())
    store.engine.dispose()
    return rows, series, revisions


def rows_stored(url):
    store = Store(url)
    rows = int(store.series()["rows"].sum()) if store.stored() else 0
    store.engine.dispose()
    return rows


@pytest.mark.parametrize(("database", "kills"), [("sqlite", 70), ("postgresql", 30)])
def test_a_loader_killed_at_random_moments_ends_as_an_undisturbed_one(database, kills, tmp_path, folder, request):
    def fresh(name):
        return f"sqlite:///{tmp_path / name}.db" if database == "sqlite" else request.getfixturevalue("postgres")()

    undisturbed = fresh("undisturbed")
    began = time.monotonic()
    run(load, undisturbed, folder).join()
    length, rng, hits, rounds = time.monotonic() - began, np.random.default_rng(20), 0, 0
    expected, expected_series, _ = state(undisturbed)
    total = int(expected_series["rows"].sum())
    while hits < kills:
        url, rounds = fresh(f"round{rounds}"), rounds + 1
        for _ in range(8):
            process = run(load, url, folder)
            time.sleep(rng.uniform(0, 0.8 * length))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            if rows_stored(url) == total:
                break
            hits += process.exitcode == -signal.SIGKILL  # it was killed with work left to do
        last = run(load, url, folder)
        last.join()
        assert last.exitcode == 0
        rows, series, revisions = state(url)
        assert rows.keys() == expected.keys() and revisions == 0
        for key, frame in expected.items():
            pd.testing.assert_frame_equal(rows[key], frame, check_exact=True)
        pd.testing.assert_frame_equal(series, expected_series)


def write_pages(url, key, shift):
    store = Store(url)
    with store.ingest(key, Provenance(f"writer {shift}")) as write:
        for at in range(shift, len(BARS) - PAGE, PAGE):
            write(BARS.iloc[at:at + PAGE])
    store.engine.dispose()


def test_two_processes_may_write_the_same_series_at_once(store):
    url = store.url.render_as_string(hide_password=False)
    writers = [run(write_pages, url, PAGED, shift) for shift in (0, 70)]
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0]
    stored = store.read(PAGED)
    pd.testing.assert_frame_equal(stored, BARS.iloc[:len(stored)], check_freq=False, check_exact=True)
    runs, row = store.runs(PAGED), store.series().iloc[0]
    assert row["rows"] == len(stored) == runs["inserted"].sum() == PAGE * (PAGES - 1) + 70
    assert len(runs) == 2 and runs["unchanged"].sum() + len(stored) == 2 * PAGE * (PAGES - 1) and len(store.revisions(PAGED)) == 0


def test_two_processes_may_create_the_database_and_write_two_series_at_once(store):
    url = store.url.render_as_string(hide_password=False)
    keys = [PAGED._replace(symbol=s) for s in ("AUSDT", "BUSDT", "CUSDT")]
    writers = [run(write_pages, url, key, 0) for key in keys]
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0, 0]
    assert [len(store.read(key)) for key in keys] == [PAGE * (PAGES - 1)] * 3


def test_a_reader_sees_whole_pages_only(store):
    store.upsert(PAGED, BARS.iloc[:PAGE], Provenance("first"))
    writer = run(write_pages, store.url.render_as_string(hide_password=False), PAGED, 0)
    seen = []
    while writer.is_alive():
        seen.append(len(store.times(PAGED)))
    writer.join()
    assert len(seen) > 5 and all(n % PAGE == 0 for n in seen) and seen == sorted(seen)

"""From the venues, through their real clients and over every fault, to a store that equals the source row for row."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import moment
from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.exchanges import Patience
from cryptoalgo.data.pull import Request, Venues, plan, pull, walks
from cryptoalgo.data.replay import ReplayClock, serving
from cryptoalgo.data.replay_faults import parse_faults
from cryptoalgo.data.simulate import simulate
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey

HOUR = 3_600_000
COINS = ("BTC", "ETH", "SOL", "XRP", "DOGE")
SYMBOLS = tuple(f"{c}USDT" for c in COINS)
START, DAYS = "2024-01-01", 40
NOW = "2024-02-09 12:20"
QUICK = Patience(first_s=0.001, longest_s=0.01, timeout_s=2)
ALL_FAULTS = ("429=.05,500=.03,502=.03,reset=.03,timeout=.01,hang=2.2,truncated=.04,duplicated=.15,disordered=.15,missing=.1,retry_after=0.01")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    "Five simulated coins under the names of real venues: perpetuals at two of them, spot of BTC at Coinbase without 4h bars."
    store = Store(tmp_path_factory.mktemp("source") / "trading.db")
    params = SimulatorParams(seed=3, start=START, days=DAYS)
    for timeframe in ("15m", "1h", "4h"):
        market = simulate(params, COINS, timeframe)
        for coin, symbol in zip(COINS, SYMBOLS):
            bars = market.bars[coin].drop(columns="is_filled")
            for venue in ("binanceusdm", "bybit") if coin != "DOGE" else ("bybit",):
                store.upsert(SeriesKey("candles", venue, symbol, timeframe), bars, Provenance("simulated"))
            if coin == "BTC" and timeframe != "4h":
                store.upsert(SeriesKey("candles", "coinbase", symbol, timeframe), bars, Provenance("simulated"))
    for coin, symbol in zip(COINS, SYMBOLS):
        for venue in ("binanceusdm", "bybit") if coin != "DOGE" else ("bybit",):
            store.upsert(SeriesKey("funding", venue, symbol), market.funding[coin], Provenance("simulated"))
        interest = market.open_interest[coin]
        store.upsert(SeriesKey("open_interest", "bybit", symbol, "1h"), interest, Provenance("simulated"))
    return store


@pytest.fixture
def target(tmp_path):
    store = Store(tmp_path / "target.db")
    yield store
    store.engine.dispose()


def fetch(url, store, contracts, request, order=("binanceusdm", "bybit")):
    made = plan(request, Venues(order, url, QUICK), store.stored())
    return made, pull(made, request, store, contracts)


def wanted(symbols=SYMBOLS, timeframes=("15m", "1h", "4h"), since=START, **more):
    return Request(symbols, timeframes, moment(since), **more)


def assert_same(target, source, keys, end=NOW):
    "Every row of the source that was finished, and no other."
    for key in keys:
        rows = source.read(key)
        done = rows[rows["available_time"] <= pd.Timestamp(end, tz="UTC")]
        pd.testing.assert_frame_equal(target.read(key), done, check_exact=True, check_freq=False)


def test_five_coins_three_timeframes_funding_and_open_interest_equal_the_source(source, target, contracts):
    with serving(source, ReplayClock(NOW, 0), parse_faults(ALL_FAULTS, seed=11)) as replay:
        made, report = fetch(replay.url, target, contracts, wanted(open_interest=True))
    assert [row for row in report.rows if row.refused or row.failed] == [] and report.exit_code == 0
    keys = [job.key for job in made.jobs]
    assert len(keys) == 5 * 5 and {k.venue for k in keys if k.symbol == "DOGEUSDT" and k.kind == "candles"} == {"bybit"}
    assert {k.venue for k in keys if k.kind == "open_interest"} == {"bybit"}
    assert_same(target, source, keys)
    assert sum(len(target.revisions(key)) for key in keys) == 0
    assert len(replay.faults_done) >= 8 and sum(replay.faults_done.values()) > 20


def test_a_second_pull_looks_at_the_newest_rows_only(source, target, contracts):
    request = wanted(("BTCUSDT",), ("1h",))
    with serving(source, ReplayClock(NOW, 0)) as replay:
        fetch(replay.url, target, contracts, request)
        before = sum(replay.requests.values())
        _, again = fetch(replay.url, target, contracts, request)
    assert sum(row.inserted + row.revised for row in again.rows) == 0 and 0 < sum(row.unchanged for row in again.rows) <= 30
    assert sum(replay.requests.values()) - before <= 5


def test_what_came_later_is_added_and_nothing_unfinished(source, target, contracts):
    key = SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")
    for now in ("2024-01-20 03:59", "2024-01-20 04:00", NOW):
        with serving(source, ReplayClock(now, 0)) as replay:
            fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("1h",)))
        assert_same(target, source, [key], now)
    assert len(target.revisions(key)) == 0


def test_a_venue_whose_clock_is_ahead_gets_no_unfinished_bar_stored(source, target, contracts, monkeypatch):
    "The venue says it is an hour later than it is: the clock of this machine decides."
    monkeypatch.setattr("cryptoalgo.data.exchanges.time.time", lambda: moment(NOW) / 1000)
    with serving(source, ReplayClock(NOW, 0), parse_faults("skew=3600")) as replay:
        fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("1h",)))
    assert_same(target, source, [SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")])


def test_a_candle_that_later_changes_is_a_revision(source, target, contracts):
    key = SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")
    with serving(source, ReplayClock(NOW, 0), parse_faults("revised=1")) as replay:
        fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("1h",)))
        _, again = fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("1h",)))
    assert replay.faults_done["revised"] > 0 and again.rows[0].revised == len(target.revisions(key)) > 0
    assert_same(target, source, [key])


def test_an_older_beginning_and_holes_inside_are_back_filled(source, target, contracts):
    key = SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")
    rows = source.read(key)
    target.upsert(key, rows.iloc[300:400].drop(rows.index[350:353]), Provenance("by hand"))
    with serving(source, ReplayClock(NOW, 0)) as replay:
        fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("1h",), backfill=True, newest=False))
        assert len(target.read(key)) == 400  # the beginning and the hole, nothing newer
        fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("1h",), backfill=True))
    assert_same(target, source, [key])


def test_four_hours_are_made_where_the_venue_has_none(source, target, contracts):
    with serving(source, ReplayClock(NOW, 0)) as replay:
        made, report = fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("4h",)), ("coinbase", "binanceusdm"))
    key = SeriesKey("candles", "coinbase", "BTCUSDT", "4h")
    assert list(made.derived) == [key] and [row.file for row in report.rows if row.series == str(key)] == ["made from 2h bars"]
    own = source.read(SeriesKey("candles", "binanceusdm", "BTCUSDT", "4h"))
    made_here = target.read(key)
    pd.testing.assert_frame_equal(made_here, own.loc[made_here.index], check_freq=False, rtol=1e-12)
    assert made_here.index[-1] == pd.Timestamp("2024-02-09 08:00", tz="UTC")


def test_the_first_venue_that_lists_a_pair_has_it_and_what_none_lists_is_named(source, target, contracts):
    with serving(source, ReplayClock(NOW, 0)) as replay:
        made = plan(wanted(("BTCUSDT", "ETHUSDT", "ADAUSDT"), ("1h",)), Venues(("coinbase", "binanceusdm", "bybit"), replay.url, QUICK))
    assert [str(job.key) for job in made.jobs] == ["candles coinbase BTCUSDT 1h", "funding binanceusdm BTCUSDT",
                                                   "candles binanceusdm ETHUSDT 1h", "funding binanceusdm ETHUSDT"]
    assert made.missing == ["no candles of ADAUSDT at coinbase, binanceusdm, bybit"]


def test_a_venue_that_cannot_be_reached_is_passed_over_unless_the_series_lives_there(source, target, contracts, monkeypatch):
    with serving(source, ReplayClock(NOW, 0)) as replay:
        venues = Venues(("binanceusdm", "bybit"), replay.url, QUICK)
        venues.unreachable["binanceusdm"] = "binanceusdm: no answer"
        made = plan(wanted(("BTCUSDT",), ("1h",)), venues)
        assert {job.key.venue for job in made.jobs} == {"bybit"} and made.notes == ["passed over binanceusdm: binanceusdm: no answer"]
        home = [SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")]
        made = plan(wanted(("BTCUSDT",), ("1h",)), venues, home)
        assert [row.failed for row in made.failed] == ["binanceusdm: no answer"]
        report = pull(made, wanted(("BTCUSDT",), ("1h",)), target, contracts)
        assert report.exit_code == 3 and "failed: binanceusdm: no answer" in report.text()


def test_a_page_that_breaks_the_contract_is_refused_and_what_came_before_it_stays(source, tmp_path, target, contracts):
    "A hole of twenty hours that no waiver excuses, in the middle of the second page."
    bad, key = Store(tmp_path / "bad.db"), SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h")
    rows = source.read(key)
    long = pd.concat([rows, rows.set_axis(rows.index + pd.Timedelta(days=DAYS)).assign(available_time=rows["available_time"] + pd.Timedelta(days=DAYS))])
    bad.upsert(key, long.drop(long.index[1200:1220]), Provenance("recorded"))
    bad.upsert(SeriesKey("funding", "binanceusdm", "BTCUSDT"), source.read(SeriesKey("funding", "binanceusdm", "BTCUSDT")), Provenance("recorded"))
    with serving(bad, ReplayClock("2024-03-20", 0)) as replay:
        _, report = fetch(replay.url, target, contracts, wanted(("BTCUSDT",), ("1h",)))
    refused = report.rows[0].refused
    assert "20 hours are missing since 2024-02-19 23:00" in refused and "grant a dated waiver of 'gap'" in refused and report.exit_code == 2
    assert len(target.read(key)) == 1000 and report.rows[1].inserted == 120


def _pull_all(url, database, request):
    from cryptoalgo.data.contracts import load_contracts

    from .conftest import CONTRACTS

    fetch(url, Store(database), load_contracts(CONTRACTS), request)


def test_a_pull_killed_at_any_moment_goes_on_to_the_same_rows(source, tmp_path, contracts):
    fork, rng, hits = multiprocessing.get_context("fork"), np.random.default_rng(4), 0
    request = wanted(("BTCUSDT", "DOGEUSDT"), ("15m", "1h"))
    database = tmp_path / "killed.db"
    with serving(source, ReplayClock(NOW, 0)) as replay:
        for _ in range(12):
            process = fork.Process(target=_pull_all, args=(replay.url, f"sqlite:///{database}", request))
            process.start()
            time.sleep(rng.uniform(0.1, 1.2))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            hits += process.exitcode == -signal.SIGKILL
        store = Store(database)
        made, report = fetch(replay.url, store, contracts, request)
    assert hits >= 4 and report.exit_code == 0, report.text()
    assert_same(store, source, [job.key for job in made.jobs])
    assert sum(len(store.revisions(job.key)) for job in made.jobs) == 0


def test_walks_of_a_stored_series():
    times = np.arange(100, 200) * HOUR
    request = Request((), (), 50 * HOUR)
    assert [(w.start // HOUR, w.end // HOUR) for w in walks(request, times, HOUR, 300 * HOUR)] == [(187, 300)]
    assert walks(request._replace(newest=False), times, HOUR, 300 * HOUR) == []
    assert [(w.start // HOUR, w.end // HOUR, w.backward) for w in walks(request._replace(backfill=True, newest=False), times, HOUR, 300 * HOUR)] == [(50, 100, True)]
    assert walks(request, np.array([], dtype="int64"), HOUR, 40 * HOUR) == []
    assert [(w.start // HOUR, w.end // HOUR) for w in walks(request._replace(until_ms=60 * HOUR), np.array([], dtype="int64"), HOUR, 300 * HOUR)] == [(50, 60)]

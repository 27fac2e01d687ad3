"""The real ccxt and yfinance clients against the replay exchange: what arrives is what is stored, and faults strike as asked."""

import hashlib
import json
import threading
import time
from pathlib import Path

import ccxt
import numpy as np
import pandas as pd
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, moment, timeframe_ms, to_ms
from cryptoalgo.core.errors import InputError, OutsideError
from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.replay import ReplayClock, parse_faults, replay_clock, serve_forever, serving
from cryptoalgo.data.replay_faults import NEWEST, ROWS, WHOLE, Faults, Mischief
from cryptoalgo.data.replay_tape import OHLCV, Span, Tape
from cryptoalgo.data.replay_yahoo import dividends_in_todays_shares, in_todays_shares
from cryptoalgo.data.resample import resample
from cryptoalgo.data.simulate import simulate
from cryptoalgo.data.sources import ingest_file
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey

from .conftest import make_bars

HOUR, DAY = 3_600_000, 86_400_000
VENUES = {"coinbase": "BTC/USDT", "binance": "BTC/USDT", "binanceusdm": "BTC/USDT:USDT", "bybit": "BTC/USDT:USDT", "okx": "BTC/USDT:USDT"}
PAGE = {"coinbase": 300, "binance": 1000, "binanceusdm": 1000, "bybit": 1000, "okx": 300}
START = moment("2024-01-01")
END = START + 60 * DAY
HOLE = slice(700, 705)  # hours of an outage


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    "Sixty days of one simulated coin at five venues, hours and quarters, with an outage; and a year of a US ticker."
    store, made = Store(tmp_path_factory.mktemp("replay") / "trading.db"), Provenance("simulator")
    for timeframe in ("1h", "15m"):
        market = simulate(SimulatorParams(seed=3, days=60, start="2024-01-01"), ["BTC"], timeframe)
        bars = market.bars["BTC"]
        hours = (to_ms(bars.index) - START) // HOUR
        bars = bars[(hours < HOLE.start) | (hours >= HOLE.stop)]
        for venue in VENUES if timeframe == "1h" else ("binance", "binanceusdm"):
            store.upsert(SeriesKey("candles", venue, "BTCUSDT", timeframe), bars, made)
    for venue in ("binanceusdm", "bybit", "okx"):
        store.upsert(SeriesKey("funding", venue, "BTCUSDT"), market.funding["BTC"], made)
        store.upsert(SeriesKey("open_interest", venue, "BTCUSDT", "1h"), market.open_interest["BTC"], made)
    store.upsert(SeriesKey("daily", "yahoo", "SPY", "1d"), market.macro["SPY"], made)
    store.upsert(SeriesKey("daily", "yahoo", "^VIX", "1d", True), market.macro["SPY"], made)
    return store


@pytest.fixture(scope="module")
def still(store):
    "A replay exchange whose clock stands at the end."
    with serving(store, ReplayClock(END, 0)) as replay:
        yield replay


def client(replay, venue: str):
    made = getattr(ccxt, venue)({"enableRateLimit": False, "timeout": 5000})
    made.proxy_url = replay.url + "/"
    return made


def get(replay, url: str, **query):
    return requests.get(f"{replay.url}/{url}", params=query, timeout=5)


def values(frame, columns=OHLCV):
    return list(zip(to_ms(frame.index).tolist(), *(frame[c].tolist() for c in columns)))


def klines(replay, **query):
    return get(replay, "https://fapi.binance.com/fapi/v1/klines", **{"symbol": "BTCUSDT", "interval": "1h", **query})


# ---- what arrives is what is stored -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("venue", VENUES)
def test_candles_of_every_venue_are_the_stored_ones(still, store, venue):
    exchange, rows, since = client(still, venue), [], START
    while since < END:
        page = exchange.fetch_ohlcv(VENUES[venue], "1h", since=since, limit=PAGE[venue])
        rows += page
        full = len(page) == PAGE[venue]
        since = page[-1][0] + HOUR if full else max(since + PAGE[venue] * HOUR, page[-1][0] + HOUR if page else 0)
    assert [tuple(row) for row in rows] == values(store.candles(venue, "BTCUSDT", "1h"))


@pytest.mark.parametrize("venue", VENUES)
def test_markets_and_time(still, venue):
    exchange = client(still, venue)
    market = exchange.load_markets()[VENUES[venue]]
    assert (market["base"], market["quote"], market["active"], market["spot"]) == ("BTC", "USDT", True, venue in ("coinbase", "binance"))
    assert market["created"] == (None if market["spot"] else START)
    assert exchange.fetch_time() == END


@pytest.mark.parametrize("venue", ["binanceusdm", "bybit", "okx"])
def test_funding_is_the_stored_one(still, store, venue):
    exchange, since, rows = client(still, venue), START, []
    while since < END:
        until = {"until": since + 80 * 8 * HOUR - 1} | ({"after": since + 80 * 8 * HOUR} if venue == "okx" else {})
        rows += [(r["timestamp"], r["fundingRate"]) for r in exchange.fetch_funding_rate_history(VENUES[venue], since, 100, until)]
        since += 80 * 8 * HOUR
    assert rows == values(store.funding(venue, "BTCUSDT"), ["funding_rate"])


def test_open_interest_of_bybit_by_its_cursor(still, store):
    exchange = client(still, "bybit")
    rows = exchange.fetch_open_interest_history("BTC/USDT:USDT", "1h", START, None, {"paginate": True, "until": END, "paginationCalls": 20})
    want = values(store.open_interest("bybit", "BTCUSDT"), ["open_interest"])
    assert sorted({(r["timestamp"], r["openInterestAmount"]) for r in rows}) == want
    four = exchange.fetch_open_interest_history("BTC/USDT:USDT", "4h", END - 2 * DAY, 200, {"until": END})
    assert [(r["timestamp"], r["openInterestAmount"]) for r in four] == [w for w in want if w[0] >= END - 2 * DAY and w[0] % (4 * HOUR) == 0]


def test_open_interest_of_binance_goes_back_thirty_days(still, store):
    exchange = client(still, "binanceusdm")
    rows = exchange.fetch_open_interest_history("BTC/USDT:USDT", "1h", END - 10 * DAY, 200, {"until": END - 10 * DAY + 199 * HOUR})
    assert [(r["timestamp"], r["openInterestAmount"]) for r in rows] == values(store.open_interest("binanceusdm", "BTCUSDT"), ["open_interest"])[-240:-40]
    with pytest.raises(ccxt.BadRequest, match="startTime"):
        exchange.fetch_open_interest_history("BTC/USDT:USDT", "1h", END - 31 * DAY, 500)
    newest = get(still, "https://fapi.binance.com/futures/data/openInterestHist", symbol="BTCUSDT", period="1h", limit=500).json()
    assert len(newest) == 500 and newest[-1]["timestamp"] == END - HOUR


def test_four_hours_are_made_of_whole_hours_on_every_page(still, store):
    exchange, rows = client(still, "binanceusdm"), []
    for since in range(START, END, 50 * 4 * HOUR):
        rows += exchange.fetch_ohlcv("BTC/USDT:USDT", "4h", since=since, limit=50, params={"until": since + 50 * 4 * HOUR - 1})
    want = resample(store.candles("binanceusdm", "BTCUSDT", "1h"), "1h", "4h", 6)
    assert [tuple(row) for row in rows] == values(want)


# ---- each venue's habits ------------------------------------------------------------------------------------------------------

def test_pages_run_forward_or_end_now_and_are_capped(still):
    forward = klines(still, startTime=START, limit=3).json()
    assert [row[0] for row in forward] == [START, START + HOUR, START + 2 * HOUR]
    assert [row[0] for row in klines(still, limit=2).json()] == [END - 2 * HOUR, END - HOUR]
    assert [row[0] for row in klines(still, endTime=START + HOUR, limit=5).json()] == [START, START + HOUR]
    assert len(klines(still, startTime=0, limit=9999).json()) == 60 * 24 - 5  # 1,500 at most, and there are fewer
    spot = get(still, "https://api.binance.com/api/v3/klines", symbol="BTCUSDT", interval="15m", limit=9999).json()
    assert len(spot) == 1000 and len(spot[0][1].partition(".")[2]) >= 8


def test_the_others_write_the_newest_first(still):
    bybit = get(still, "https://api.bybit.com/v5/market/kline", symbol="BTCUSDT", interval="60", start=END - 2 * HOUR + 60_000, limit=9).json()
    okx = get(still, "https://www.okx.com/api/v5/market/candles", instId="BTC-USDT-SWAP", bar="1H", limit=2).json()
    product = "https://api.coinbase.com/api/v3/brokerage/market/products/BTC-USDT/candles"
    coinbase = get(still, product, granularity="ONE_HOUR", start=(END - 2 * HOUR) // 1000 + 60, end=END // 1000).json()
    for times in ([int(r[0]) for r in bybit["result"]["list"]], [int(r[0]) for r in okx["data"]],
                  [int(r["start"]) * 1000 for r in coinbase["candles"]]):
        assert times == [END - HOUR, END - 2 * HOUR]  # Coinbase and Bybit: the second opened before `start`


@pytest.mark.parametrize(("url", "query", "status", "words"), [
    ("https://fapi.binance.com/fapi/v1/klines", {"symbol": "NOUSDT", "interval": "1h"}, 400, '"code": -1121'),
    ("https://fapi.binance.com/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "5m"}, 400, '"code": -1120'),
    ("https://fapi.binance.com/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1h", "limit": "many"}, 400, '"code": -1130'),
    ("https://api.bybit.com/v5/market/kline", {"symbol": "NOUSDT", "interval": "60"}, 200, '"retCode": 10001'),
    ("https://api.bybit.com/v5/market/funding/history", {"symbol": "BTCUSDT", "startTime": "1"}, 200, "params error: endTime"),
    ("https://www.okx.com/api/v5/market/candles", {"instId": "NO-USDT-SWAP", "bar": "1H"}, 200, '"code": "51001"'),
    ("https://api.coinbase.com/api/v3/brokerage/market/products/NO-USD/candles", {"granularity": "ONE_HOUR", "start": "0", "end": "9"}, 404, "NOT_FOUND"),
    ("https://api.coinbase.com/api/v3/brokerage/market/products/BTC-USDT/candles", {"granularity": "ONE_HOUR", "start": "0", "end": "1260000"}, 400, "less than 350"),
    ("https://query2.finance.yahoo.com/v8/finance/chart/NONE", {"range": "1d"}, 404, "No data found, symbol may be delisted"),
    ("https://query2.finance.yahoo.com/v8/finance/chart/SPY", {"interval": "1h"}, 422, "interval=1h"),
    ("https://query2.finance.yahoo.com/v8/finance/chart/SPY", {"period1": "0", "period2": "86400"}, 400, "Data doesn't exist"),
    ("https://api.kraken.com/0/public/Time", {}, 404, "api.kraken.com: not a host that is played back"),
    ("https://fapi.binance.com/fapi/v1/depth", {}, 404, "/fapi/v1/depth: not a path of fapi.binance.com"),
    ("favicon.ico", {}, 404, "whole address behind this one"),
])
def test_what_is_not_there_is_refused_in_the_venues_words(still, url, query, status, words):
    answer = get(still, url, **query)
    assert answer.status_code == status and words in answer.text


def test_an_unknown_symbol_is_unknown_to_ccxt_too(still):
    for venue in VENUES:
        with pytest.raises(ccxt.BadSymbol):
            client(still, venue).fetch_ohlcv("NO/USDT", "1h")


# ---- time ---------------------------------------------------------------------------------------------------------------------

@given(now=st.integers(START - HOUR, END + HOUR), timeframe=st.sampled_from(["15m", "1h", "4h"]), most=st.integers(1, 40),
       newest=st.booleans(), first=st.integers(START - DAY, END + DAY), length=st.integers(0, 30 * DAY), coarse=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_page_is_what_plain_python_finds_and_nothing_of_the_future(store, now, timeframe, most, newest, first, length, coarse):
    venue = "bybit" if coarse and timeframe != "15m" else "binanceusdm"
    step = timeframe_ms(timeframe)
    span = Span(first, first + length, most, newest)
    tape = Tape(store, now, now)
    if not tape.listed(venue):
        assert now < START
        return
    page = values(tape.bars(venue, "BTCUSDT", timeframe, span))
    closed, forming = [b for b in _all_bars(store, venue, timeframe) if b[0] + step <= now], now // step * step
    inside = [b for b in [*closed, *_forming(store, venue, timeframe, forming, now)] if first <= b[0] <= first + length]
    assert page == (inside[-most:] if newest else inside[:most])


_BARS: dict = {}


def _all_bars(store, venue, timeframe):
    if (venue, timeframe) not in _BARS:
        made = timeframe == "4h"
        bars = store.candles(venue, "BTCUSDT", "1h" if made else timeframe)
        _BARS[venue, timeframe] = values(resample(bars, "1h", "4h", 6) if made else bars)
    return _BARS[venue, timeframe]


def _forming(store, venue, timeframe, begin, now):
    "The present bar by hand: from the shortest bars that are stored, the last of them flat."
    fine = "15m" if venue == "binanceusdm" else "1h"
    length = timeframe_ms(fine)
    parts = [b if b[0] + length <= now else (b[0], b[1], b[1], b[1], b[1], 0.0) for b in _all_bars(store, venue, fine) if begin <= b[0] <= now]
    if not parts:
        return []
    return [(begin, parts[0][1], max(p[2] for p in parts), min(p[3] for p in parts), parts[-1][4], pytest.approx(sum(p[5] for p in parts), rel=1e-12))]


def test_the_present_bar_is_unfinished(store):
    now = START + 100 * HOUR + 40 * 60_000
    quarters = store.candles("binance", "BTCUSDT", "15m", from_ms([now - 40 * 60_000])[0], from_ms([now])[0])
    hour = store.candles("binance", "BTCUSDT", "1h", from_ms([now - 40 * 60_000])[0], from_ms([now])[0]).iloc[0]
    with serving(store, ReplayClock(now, 0)) as replay:
        exchange = client(replay, "binance")
        last = exchange.fetch_ohlcv("BTC/USDT", "1h", limit=1)[0]
        assert last[1:5] == [quarters["open"].iloc[0], quarters["high"].iloc[:2].max(), quarters["low"].iloc[:2].min(), quarters["open"].iloc[2]]
        assert 0 < last[5] < hour["volume"]
        alone = client(replay, "bybit").fetch_ohlcv("BTC/USDT:USDT", "1h", since=now - 2 * HOUR)[-1]
        assert alone == [now // HOUR * HOUR, *[hour["open"]] * 4, 0]
        assert exchange.fetch_ohlcv("BTC/USDT", "1h", since=now + HOUR) == []
        assert client(replay, "okx").fetch_ohlcv("BTC/USDT:USDT", "1h", since=now - 2 * HOUR)[-1][0] == now // HOUR * HOUR - HOUR


def test_the_clock_runs_as_fast_as_it_is_told(store):
    wall = [1000.0]
    clock = ReplayClock("2024-01-10 00:59", speed=3600, ticks=lambda: wall[0])
    with serving(store, clock) as replay:
        exchange = client(replay, "binanceusdm")
        before = exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", limit=3)
        wall[0] += 2.5
        assert exchange.fetch_time() == moment("2024-01-10 03:29")
        after = exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", limit=3)
    assert [b[0] for b in before] == [moment("2024-01-09 22:00") + i * HOUR for i in range(3)]
    assert [b[0] for b in after] == [moment("2024-01-10 01:00") + i * HOUR for i in range(3)]


def test_by_default_it_begins_when_the_last_candle_closes(store, tmp_path):
    assert replay_clock(store, speed=0).now() == END
    assert replay_clock(store, "2024-01-05", 0).now() == moment("2024-01-05")
    with pytest.raises(InputError, match="holds no bars to play back"):
        replay_clock(Store(tmp_path / "none.db"))
    for start, speed, words in (("soon", 1, "'soon' is not a time"), ("2024-01-05", -1, "replay speed -1")):
        with pytest.raises(InputError, match=words):
            ReplayClock(start, speed)


def test_a_market_is_listed_from_its_first_bar_on(tmp_path):
    store = Store(tmp_path / "x.db")
    for symbol, start in (("BTCUSDT", START), ("NEWUSDT", START + 20 * HOUR)):
        frame = make_bars(48, start)
        store.upsert(SeriesKey("candles", "binanceusdm", symbol, "1h"), frame.assign(available_time=from_ms(to_ms(frame.index) + HOUR)), Provenance("x"))
    for hours, listed in ((19, ["BTC/USDT:USDT"]), (20, ["BTC/USDT:USDT", "NEW/USDT:USDT"])):
        with serving(store, ReplayClock(START + hours * HOUR, 0)) as replay:
            assert list(client(replay, "binanceusdm").load_markets()) == listed


def test_a_page_reads_few_rows_and_nothing_is_written(store, monkeypatch):
    read, counts, path = Store.read, [], Path(str(store.url.database))
    before = hashlib.sha256(path.read_bytes()).hexdigest()

    def counted(self, *args):
        frame = read(self, *args)
        counts.append(len(frame))
        return frame

    monkeypatch.setattr(Store, "read", counted)
    with serving(store, ReplayClock(END, 0), parse_faults("revised=1,missing=1,duplicated=1")) as replay:
        for interval, fine in (("15m", 1), ("1h", 1), ("4h", 4)):
            for query in ({"startTime": START}, {}, {"startTime": START + 690 * HOUR}):
                counts.clear()
                assert klines(replay, interval=interval, limit=50, **query).status_code == 200
                assert sum(counts) <= 4 * 50 * fine
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


# ---- faults -------------------------------------------------------------------------------------------------------------------

def faulty(store, text, now=END):
    return serving(store, ReplayClock(now, 0), parse_faults(text))


@pytest.mark.parametrize("venue", VENUES)
def test_too_many_requests(store, venue):
    with faulty(store, "429=1,retry_after=7") as replay:
        exchange = client(replay, venue)
        with pytest.raises(ccxt.DDoSProtection if "binance" in venue else ccxt.RateLimitExceeded):
            exchange.load_markets()
        assert exchange.last_response_headers["Retry-After"] == "7"
        assert replay.faults_done["rate_limit"] == sum(replay.requests.values())


@pytest.mark.parametrize(("text", "status"), [("500=1", 500), ("502=1", 502)])
@pytest.mark.parametrize("venue", ["binanceusdm", "bybit", "coinbase", "okx"])
def test_server_errors(store, venue, text, status):
    with faulty(store, text) as replay:
        with pytest.raises(ccxt.ExchangeNotAvailable, match=str(status)):
            client(replay, venue).fetch_time()


def test_time_out(store):
    with faulty(store, "timeout=1") as replay:
        exchange = client(replay, "binanceusdm")
        exchange.timeout = 150
        with pytest.raises(ccxt.RequestTimeout):
            exchange.fetch_time()
    with faulty(store, "timeout=1,hang=0.05") as replay, pytest.raises(ccxt.NetworkError):
        client(replay, "bybit").fetch_time()


def test_connection_reset(store):
    with faulty(store, "reset=1") as replay:
        with pytest.raises(requests.ConnectionError, match="reset by peer"):
            klines(replay)
        with pytest.raises(ccxt.NetworkError):
            client(replay, "binanceusdm").fetch_time()
    assert replay.faults_done["reset"] == 2


def test_truncated_json(store):
    with faulty(store, "truncated=1") as replay:
        answer = klines(replay, limit=5)
        assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("application/json")
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer.text)
    with serving(store, ReplayClock(END, 0)) as replay:
        assert klines(replay, limit=5).text.startswith(answer.text)


@pytest.mark.parametrize("name", ["duplicated", "disordered", "missing"])
def test_rows_twice_out_of_order_or_left_out(store, still, name):
    want = [row[0] for row in klines(still, limit=40).json()]
    with faulty(store, f"{name}=1") as replay:
        got = [row[0] for row in klines(replay, limit=40).json()]
        settled = [r["fundingTime"] for r in get(replay, "https://fapi.binance.com/fapi/v1/fundingRate", symbol="BTCUSDT").json()]
        assert replay.faults_done == {name: 2}
    if name == "duplicated":
        assert len(got) == 41 and sorted(set(got)) == want and got == sorted(got)
    elif name == "disordered":
        assert got != want and sorted(got) == want and settled != sorted(settled)
    else:
        assert len(got) == 39 and set(got) < set(want)


def test_a_candle_that_later_changes(store, still):
    want = klines(still, limit=10).json()
    with faulty(store, "revised=1") as replay:
        first, second = klines(replay, limit=10).json(), klines(replay, limit=10).json()
        assert replay.faults_done["revised"] == 1
        other = get(replay, "https://api.binance.com/api/v3/klines", symbol="BTCUSDT", interval="1h", limit=10).json()
    assert second == want and first[:-NEWEST] == want[:-NEWEST]
    for was, now in zip(first[-NEWEST:], want[-NEWEST:]):
        o, h, low, c, v = map(float, was[1:6])
        assert was[0] == now[0] and was[4:6] != now[4:6] and low <= min(o, c) <= max(o, c) <= h and 0 < v < float(now[5])
    assert [row[4:6] for row in other[-NEWEST:]] != [row[4:6] for row in want[-NEWEST:]]  # every series for itself


def test_an_unseen_bar_is_revised_when_it_closes(store):
    wall = [0.0]
    clock = ReplayClock(START + 100 * HOUR, speed=3600, ticks=lambda: wall[0])
    with serving(store, clock, parse_faults("revised=1")) as replay:
        klines(replay, limit=5)
        wall[0] += 1
        looks = [{row[0]: row[4] for row in klines(replay, limit=5).json()} for _ in range(2)]
    changed = [t for t in looks[0] if looks[0][t] != looks[1][t]]
    assert changed == [START + 100 * HOUR]


def test_a_closed_bar_that_still_stands_half_way(store, still):
    want = klines(still, limit=4).json()
    with faulty(store, "partial=1") as replay:
        got = klines(replay, limit=4).json()
        assert klines(replay, limit=4).json() == want and replay.faults_done == {"partial": 1}
    assert got[:-1] == want[:-1] and float(got[-1][5]) == float(want[-1][5]) / 2
    assert float(want[-1][3]) <= float(got[-1][3]) <= float(got[-1][2]) <= float(want[-1][2]) and got[-1][4] != want[-1][4]


def test_a_clock_that_is_wrong(store):
    with faulty(store, "skew=90") as replay:
        exchange = client(replay, "bybit")
        assert exchange.fetch_time() == END + 90_000
        assert exchange.fetch_ohlcv("BTC/USDT:USDT", "1h", since=END - 2 * HOUR)[-1][0] == END - HOUR
        assert exchange.last_response_headers["Date"] == "Fri, 01 Mar 2024 00:01:30 GMT"


def test_the_same_seed_brings_the_same_faults(store):
    def run(seed):
        with serving(store, ReplayClock(END, 0), parse_faults("429=.2,500=.2,reset=.1,truncated=.1,duplicated=.3,missing=.3", seed)) as replay:
            answers = [replay.answer(f"/https://fapi.binance.com/fapi/v1/klines?symbol=BTCUSDT&interval=1h&limit={5 + n % 3}") for n in range(80)]
            return [(a.reply, a.fault) for a in answers], replay.faults_done

    assert run(7) == run(7) and run(7) != run(8)
    assert set(run(7)[1]) == {"rate_limit", "server_error", "reset", "truncated", "duplicated", "missing"}


def test_chances_are_kept():
    mischief = Mischief(parse_faults("429=.1,500=.05,timeout=.02", seed=1))
    for n in range(20_000):
        mischief.strike(n)
    for name, chance in (("timeout", 0.02), ("rate_limit", 0.1 * 0.98), ("server_error", 0.05 * 0.9 * 0.98)):
        assert abs(mischief.done[name] / 20_000 - chance) < 4 * np.sqrt(chance / 20_000)


@given(st.dictionaries(st.sampled_from([*WHOLE, *ROWS]), st.floats(0.001, 1)), st.integers(0, 2**31), st.floats(-1e4, 1e4))
def test_faults_are_written_as_they_are_read(chances, seed, skew):
    faults = Faults(**chances, seed=seed, skew_s=skew)
    assert parse_faults(faults.text) == faults


@pytest.mark.parametrize(("text", "words"), [
    ("timout=.1", "there is no such fault .did you mean 'timeout'"), ("429=2", "rate_limit.* = 2.*between 0 and 1"),
    ("reset", "write a chance"), ("500=often", "'server_error' = often"), ("hang=0", "'hang_s' = 0: input should be greater than 0"), ("skew=inf", "finite"), ("seed=-1", "'seed'")])
def test_faults_that_are_none_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_faults(text)


# ---- running ------------------------------------------------------------------------------------------------------------------

def test_a_taken_port_is_named(still, store):
    port = int(still.url.rpartition(":")[2])
    with pytest.raises(OutsideError, match=f"127.0.0.1:{port}: cannot listen there"), serving(store, port=port):
        pass
    with pytest.raises(OutsideError, match="name another port"):
        serve_forever(store, port=port)


def test_many_at_once(still, store):
    want, wrong = values(store.candles("bybit", "BTCUSDT", "1h"))[:200], []

    def ask():
        for _ in range(5):
            rows = client(still, "bybit").fetch_ohlcv("BTC/USDT:USDT", "1h", since=START, limit=200)
            wrong.extend([rows] if [tuple(r) for r in rows] != want else [])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_it_runs_until_interrupted(store, capfd, tmp_path):
    import os
    import signal
    import subprocess
    import sys

    code = ("from cryptoalgo.data.replay import *; from cryptoalgo.data.store import Store; import sys\n"
            "serve_forever(Store(sys.argv[1]), faults=parse_faults('skew=2'), port=0)")
    with subprocess.Popen([sys.executable, "-c", code, str(store.url.database)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        greeting = [process.stderr.readline() for _ in range(6)]
        url = greeting[0].split()[3]
        assert "plays" in greeting[0] and "skew_s=2" in greeting[1] and f"CRYPTOALGO_EXCHANGE_BASE_URL={url}" in greeting[2]
        assert requests.get(f"{url}/https://api.bybit.com/v5/market/time", timeout=5).json()["retCode"] == 0
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
        assert "after 1 requests; faults: none" in process.stderr.read()


# ---- Yahoo --------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def yahoo(tmp_path):
    "`yahoo(replay, ticker)`: yfinance's own Ticker, led through the replay exchange, with nothing remembered from before."
    yf = pytest.importorskip("yfinance")
    from curl_cffi.requests import Session
    from yfinance.data import YfData

    yf.set_tz_cache_location(str(tmp_path))

    def open_ticker(replay, name):
        class Relayed(Session):
            def request(self, method, url, *args, **kwargs):
                return super().request(method, f"{replay.url}/{url}", *args, **kwargs)

        data = YfData(session=Relayed(impersonate="chrome"))
        data.cache_get.cache_clear()
        data._crumb = data._cookie = None
        return yf.Ticker(name, session=data._session)

    return open_ticker


@pytest.mark.parametrize("ticker", ["SPY", "^VIX"])
def test_yfinance_gets_the_stored_days(store, still, yahoo, ticker):
    frame = yahoo(still, ticker).history(start="2024-01-10", end="2024-02-20", auto_adjust=False)
    want = store.daily(ticker, "2024-01-10", "2024-02-19", adjusted=ticker == "^VIX")
    assert [d.strftime("%Y-%m-%d") for d in frame.index] == [d.strftime("%Y-%m-%d") for d in want.index]
    np.testing.assert_array_equal(frame[["Open", "High", "Low", "Close"]], want[OHLCV[:4]])
    np.testing.assert_array_equal(frame["Volume"], want["volume"].round())
    np.testing.assert_array_equal(frame["Adj Close"], want["close"])
    assert str(frame.index.tz) == ("America/Chicago" if ticker == "^VIX" else "America/New_York")


def test_yfinance_is_told_what_is_not_there(still, yahoo, caplog):
    assert yahoo(still, "NONE").history(start="2024-01-10", end="2024-02-20").empty
    assert "delisted" in caplog.text


def test_yfinance_is_told_to_slow_down(store, yahoo):
    from yfinance.exceptions import YFRateLimitError

    with faulty(store, "429=1") as replay, pytest.raises(YFRateLimitError):
        yahoo(replay, "SPY").history(start="2024-01-10", end="2024-02-20")


def chart(store, ticker, when, **query):
    with serving(store, ReplayClock(when, 0)) as replay:
        return get(replay, f"https://query2.finance.yahoo.com/v8/finance/chart/{ticker}", interval="1d", **query).json()["chart"]["result"][0]


def test_a_day_is_in_the_chart_from_its_open_on_and_final_at_its_close(store):
    day = store.daily("SPY", "2024-02-06", "2024-02-06", adjusted=False).iloc[0]
    for when, last, close in (("2024-02-06 14:29", "2024-02-05", None), ("2024-02-06 14:30", "2024-02-06", day["open"]),
                              ("2024-02-06 20:59", "2024-02-06", day["open"]), ("2024-02-06 21:00", "2024-02-06", day["close"])):
        result = chart(store, "SPY", when, range="5d")
        assert len(result["timestamp"]) == 5 and f"{pd.Timestamp(result['timestamp'][-1], unit='s'):%Y-%m-%d}" == last
        if close is not None:
            assert result["indicators"]["quote"][0]["close"][-1] == close
    whole = chart(store, "SPY", "2024-02-06 21:00", range="max")
    assert len(whole["timestamp"]) == len(store.daily("SPY", None, "2024-02-06", adjusted=False))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_todays_shares_by_hand(data):
    n = data.draw(st.integers(2, 25))
    days = START + np.arange(n) * DAY
    bars = pd.DataFrame({c: data.draw(st.lists(st.floats(50, 150), min_size=n, max_size=n)) for c in OHLCV}, index=from_ms(days))
    at = sorted(data.draw(st.sets(st.integers(0, n + 2), max_size=6)))
    actions = pd.DataFrame({"dividend": [data.draw(st.sampled_from([0.0, np.nan, 0.5, 2.0])) for _ in at],
                            "split": [data.draw(st.sampled_from([0.0, np.nan, 2.0, 3.0, 0.1])) for _ in at]},
                           index=from_ms(START + np.array(at, dtype="int64") * DAY), dtype="float64")
    got = in_todays_shares(bars, actions)
    splits = {d: s for d, s in zip(at, actions["split"]) if s > 0}
    paid = {d: a / np.prod([s for e, s in splits.items() if e > d]) for d, a in zip(at, actions["dividend"]) if a > 0}
    close = [bars["close"].iloc[i] / np.prod([s for d, s in splits.items() if d > i]) for i in range(n)]
    for i in range(n):
        shares = np.prod([s for d, s in splits.items() if d > i])
        assert got["open"].iloc[i] == pytest.approx(bars["open"].iloc[i] / shares, rel=1e-12)
        assert got["volume"].iloc[i] == pytest.approx(bars["volume"].iloc[i] * shares, rel=1e-12)
        assert got["factor"].iloc[i] == pytest.approx(np.prod([1 - a / close[min(d, n) - 1] for d, a in paid.items() if d > i]), rel=1e-12)
    assert dividends_in_todays_shares(actions)["dividend"].tolist() == pytest.approx(list(paid.values()), rel=1e-12)


def test_a_split_rewrites_the_chart_once_its_day_has_come(tmp_path, yahoo):
    store, days = Store(tmp_path / "x.db"), to_ms(pd.bdate_range("2020-08-17", "2020-09-04", tz="UTC"))
    close = np.where(days < moment("2020-08-31"), 400.0, 100.0) + np.arange(len(days))
    bars = pd.DataFrame({"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 1000.0,
                         "available_time": from_ms(days + 20 * HOUR)}, index=from_ms(days))
    store.upsert(SeriesKey("daily", "yahoo", "SPLT", "1d"), bars, Provenance("made up"))
    ex = from_ms(np.array([moment("2020-08-25"), moment("2020-08-31")]))
    store.upsert(SeriesKey("actions", "yahoo", "SPLT"), pd.DataFrame({"dividend": [2.0, 0.0], "split": [0.0, 4.0], "available_time": ex}, index=ex),
                 Provenance("made up"))
    assert chart(store, "SPLT", "2020-08-28 21:00", range="max")["indicators"]["quote"][0]["close"][0] == 400.0
    with serving(store, ReplayClock("2020-09-04 21:00", 0)) as replay:
        frame = yahoo(replay, "SPLT").history(start="2020-08-17", end="2020-09-05", auto_adjust=False)
    assert frame["Close"].iloc[0] == 100.0 and frame["Volume"].iloc[0] == 4000 and frame["Close"].iloc[-1] == close[-1]
    assert frame["Dividends"][frame["Dividends"] > 0].to_dict() == {pd.Timestamp("2020-08-25", tz="America/New_York"): 0.5}
    assert frame["Stock Splits"][frame["Stock Splits"] > 0].tolist() == [4.0]
    assert frame["Adj Close"].iloc[0] == pytest.approx(100.0 * (1 - 2 / close[5]))


# ---- recorded data ------------------------------------------------------------------------------------------------------------

@pytest.mark.data
def test_recorded_series_come_back_as_they_are_stored(data_dir, contracts, tmp_path, yahoo):
    store = Store(tmp_path / "recorded.db")
    for name in ("ohlcv-perp/binance/SOLUSDT-1h", "funding/binance/SOLUSDT", "open-interest/bybit/SOLUSDT-1h", "macro/VIX"):
        ingest_file(data_dir / f"{name}.parquet", store, contracts)
    first, end = moment("2022-11-05"), moment("2022-11-20")  # settlements came every two or four hours for a while
    with serving(store, replay_clock(store, "2022-11-20", speed=0)) as replay:
        usdm, bybit = client(replay, "binanceusdm"), client(replay, "bybit")
        candles = usdm.fetch_ohlcv("SOL/USDT:USDT", "1h", first, 1000)
        funding = usdm.fetch_funding_rate_history("SOL/USDT:USDT", first, 1000)
        interest = bybit.fetch_open_interest_history("SOL/USDT:USDT", "1h", first, 200, {"until": first + 199 * HOUR})
        vix = yahoo(replay, "^VIX").history(start="2022-11-01", end="2022-11-19", auto_adjust=False)
    until = from_ms(np.array([end - 1]))[0]
    assert [tuple(c) for c in candles[:-1]] == values(store.candles("binanceusdm", "SOLUSDT", "1h", "2022-11-05", until))
    assert candles[-1][0] == end and candles[-1][5] == 0
    assert [(r["timestamp"], r["fundingRate"]) for r in funding] == values(
        store.funding("binanceusdm", "SOLUSDT", "2022-11-05", from_ms(np.array([end]))[0]), ["funding_rate"])
    assert [(r["timestamp"], r["openInterestAmount"]) for r in interest] == values(
        store.open_interest("bybit", "SOLUSDT", "1h", "2022-11-05"), ["open_interest"])[:200]
    np.testing.assert_array_equal(vix["Close"], store.daily("^VIX", "2022-11-01", "2022-11-18")["close"])
    assert time.time() * 1000 > end

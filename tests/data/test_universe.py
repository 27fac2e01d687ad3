"""Pairs by name, and what of them a folder lacks."""

import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.data.tables import SeriesKey
from cryptoalgo.data.universe import load_universe, missing_candles, name_missing

from .conftest import CONTRACTS


@pytest.fixture
def universe():
    return load_universe(CONTRACTS.parent)


def test_twenty_pairs_and_five_coins(universe):
    assert len(universe.first(20)) == 20 and len(set(universe.first(20))) == 20
    assert universe.tracked == ("BTC", "ETH", "SOL", "XRP", "DOGE") and universe.timeframes == ("15m", "1h", "4h")
    with pytest.raises(InputError, match="--pairs 0: from 1 to 20"):
        universe.first(0)


def test_a_coin_and_its_pair_are_one(universe):
    assert universe.symbols(["BTC", " ETH", "BTCUSDT", "1000PEPE"]) == ("BTCUSDT", "ETHUSDT", "1000PEPEUSDT")


@pytest.mark.data
def test_the_recorded_folder_lacks_seven_pairs_and_the_quarters_of_doge(recorded, universe):
    store, _ = recorded
    missing = missing_candles(store.stored(), universe.first(20), ("15m", "1h", "4h"))
    seven = ["ADAUSDT", "SUIUSDT", "AVAXUSDT", "LTCUSDT", "APTUSDT", "AAVEUSDT", "XMRUSDT"]
    assert missing["1h"] == missing["4h"] == seven
    tracked = missing_candles(store.stored(), universe.symbols(universe.tracked), ("15m", "1h", "4h"))
    assert tracked == {"15m": ["DOGEUSDT"]}
    assert name_missing(tracked, "the folder") == "the folder has no 15m bars of DOGEUSDT"


def test_longer_bars_that_can_be_made_are_not_missing():
    there = [SeriesKey("candles", "binance", "BTCUSDT", "15m"), SeriesKey("funding", "binanceusdm", "ETHUSDT")]
    assert missing_candles(there, ["BTCUSDT"], ["15m", "1h", "4h"]) == {}
    assert missing_candles(there, ["ETHUSDT"], ["1h"]) == {"1h": ["ETHUSDT"]}

"""What the tests of the data layer share: the real contracts, small bars, and one store with all recorded data in it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import from_ms
from cryptoalgo.data.contracts import load_contracts
from cryptoalgo.data.sources import ingest_path
from cryptoalgo.data.store import Store

CONTRACTS = Path(__file__).resolve().parents[2] / "params" / "contracts"


@pytest.fixture(scope="session")
def contracts():
    return load_contracts(CONTRACTS)


def make_bars(n: int = 48, start_ms: int = 1_704_067_200_000, seed: int = 7) -> pd.DataFrame:
    "Hourly bars from 2024-01-01 that keep every rule."
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.005, n)))
    open_ = np.r_[100.0, close[:-1]]
    times = from_ms(start_ms + np.arange(n) * 3_600_000)
    return pd.DataFrame({"open": open_, "high": np.maximum(open_, close) * 1.002, "low": np.minimum(open_, close) * 0.998,
                         "close": close, "volume": rng.uniform(1, 9, n)}, index=times)


@pytest.fixture
def bars():
    return make_bars()


@pytest.fixture(scope="session")
def recorded(data_dir, contracts, tmp_path_factory):
    "A store that holds the whole folder of recorded data, and the report of its ingest."
    store = Store(tmp_path_factory.mktemp("recorded") / "trading.db")
    return store, ingest_path(data_dir, store, contracts)

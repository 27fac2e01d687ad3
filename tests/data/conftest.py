"""What the tests of the data layer share: the real contracts, small bars, and one store with all recorded data in it."""

from pathlib import Path

import itertools

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from cryptoalgo.core.clock import from_ms
from cryptoalgo.data.contracts import load_contracts
from cryptoalgo.data.sources import ingest_path
from cryptoalgo.data.store import Store

from .postgres import binaries, server

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


@pytest.fixture(scope="session")
def postgres(lacking):
    "`postgres()` is the URL of a new, empty database of a server that runs for these tests."
    if binaries() is None:
        lacking("PostgreSQL", "apt-get install postgresql")
    with server(binaries()) as url:
        admin = sa.create_engine(f"{url}/postgres".replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
        numbers = itertools.count(1)

        def new() -> str:
            name = f"test{next(numbers)}"
            with admin.connect() as connection:
                connection.execute(sa.text(f"CREATE DATABASE {name}"))
            return f"{url}/{name}"

        yield new
        admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    "An empty store, on either database."
    store = Store(tmp_path / "data" / "trading.db" if request.param == "sqlite" else request.getfixturevalue("postgres")())
    yield store
    store.engine.dispose()


@pytest.fixture
def sqlite_store(tmp_path):
    "An empty store in a file."
    return Store(tmp_path / "data" / "trading.db")

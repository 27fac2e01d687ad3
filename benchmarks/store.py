"""The store beside bare `sqlite3`: a million candles in, twenty pairs of 50,000 bars out, a second ingest, and peak memory.

    python benchmarks/store.py [--runs 3] [--out docs/benchmarks] [--postgres URL]

The peer is the `sqlite3` module with one table of the same columns and key, the same settings (WAL, synchronous NORMAL), one
transaction and one `executemany`; it checks nothing, keeps no runs and no revisions. Reading, it fetches all rows and makes
the same frame: prices as float64, times as UTC milliseconds. Both are given the same arrays. Memory is the peak of a process of its own that
ingests one history, in pages of 1,000 rows as a download does, or from one Parquet file.
"""

import argparse
import json
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.data.contracts import load_contracts
from cryptoalgo.data.sources import ingest_file
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey

HOUR, START = 3_600_000, 1_262_304_000_000  # hours from 2010
FIELDS = ("open", "high", "low", "close", "volume")
KEY = SeriesKey("candles", "binance", "BTCUSDT", "15m")
FROM = Provenance("benchmark")
CONTRACTS = Path(__file__).resolve().parents[1] / "params" / "contracts"


def bars(n: int, first: int = 0, step: int = 900_000) -> pd.DataFrame:
    "Rows that keep the contract, whatever their number."
    number = np.arange(first, first + n)
    close = 100 * np.exp(0.1 * np.sin(number / 50))
    open_ = 100 * np.exp(0.1 * np.sin((number - 1) / 50))
    times = START + number * step
    return pd.DataFrame({"open": open_, "high": np.maximum(open_, close) * 1.01, "low": np.minimum(open_, close) * 0.99, "close": close,
                         "volume": 1.0 + number % 97, "available_time": from_ms(times + step)}, index=from_ms(times))


def bare(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-65536"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE IF NOT EXISTS candles (series_id INTEGER, event_time INTEGER, available_time INTEGER, open REAL, high REAL, low REAL, "
                       "close REAL, volume REAL, run_id INTEGER, PRIMARY KEY (series_id, event_time)) WITHOUT ROWID")
    return connection


def bare_write(connection: sqlite3.Connection, series: int, frame: pd.DataFrame) -> None:
    columns = [to_ms(frame.index).tolist(), to_ms(frame["available_time"]).tolist(), *(frame[f].tolist() for f in FIELDS)]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO candles VALUES (?,?,?,?,?,?,?,?,?)", ((series, *row, 1) for row in zip(*columns)))
    connection.execute("COMMIT")


def bare_read(connection: sqlite3.Connection, series: int) -> pd.DataFrame:
    rows = connection.execute(f"SELECT event_time, {', '.join(FIELDS)}, available_time FROM candles WHERE series_id = ? ORDER BY event_time", (series,)).fetchall()
    frame = pd.DataFrame(rows, columns=["event_time", *FIELDS, "available_time"])
    return frame.assign(available_time=from_ms(frame["available_time"].to_numpy(), "available_time")).set_index(from_ms(frame.pop("event_time").to_numpy()))


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def speeds(folder: Path, runs: int, postgres: str | None) -> dict[str, float]:
    "Seconds, median over runs taken in turns."
    million, pairs = bars(1_000_000), {i: bars(50_000, step=HOUR) for i in range(20)}
    took: dict[str, list[float]] = {}

    def note(name: str, call: Callable[[], object]) -> None:
        took.setdefault(name, []).append(timed(call))

    for run in range(runs):
        store, peer = Store(folder / f"ours{run}.db"), bare(folder / f"bare{run}.db")
        assert store.created
        note("write 1,000,000, bare sqlite3", lambda: bare_write(peer, 1, million))
        note("write 1,000,000, store", lambda: store.upsert(KEY, million, FROM))
        note("write the same again, store", lambda: store.upsert(KEY, million, FROM))
        for i, frame in pairs.items():
            bare_write(peer, 10 + i, frame)
            store.upsert(KEY._replace(symbol=f"COIN{i}", timeframe="1h"), frame, FROM)
        note("read 20 × 50,000, bare sqlite3", lambda: [bare_read(peer, 10 + i) for i in pairs])
        note("read 20 × 50,000, store", lambda: [store.read(KEY._replace(symbol=f"COIN{i}", timeframe="1h")) for i in pairs])
        if postgres:
            served = Store(postgres)
            key = KEY._replace(symbol=f"BENCH{time.time_ns()}")
            note("write 1,000,000, store on PostgreSQL", lambda: served.upsert(key, million, FROM))
            note("read 1,000,000, store on PostgreSQL", lambda: served.read(key))
            served.engine.dispose()
        store.engine.dispose(), peer.close()
    return {name: statistics.median(values) for name, values in took.items()}


def files(folder: Path) -> dict[str, float]:
    "A Parquet file of a million rows: first ingest with contract and all, and a second one."
    path = folder / "ohlcv" / "binance" / "BTCUSDT-15m.parquet"
    path.parent.mkdir(parents=True)
    bars(1_000_000).drop(columns="available_time").rename_axis("timestamp").reset_index().to_parquet(path)
    store, contracts = Store(folder / "files.db"), load_contracts(CONTRACTS)
    return {"ingest a file of 1,000,000": timed(lambda: ingest_file(path, store, contracts)),
            "ingest it again": timed(lambda: ingest_file(path, store, contracts))}


def memory(how: str, rows: int) -> float:
    "Peak MB of a process that ingests one history; the imports alone at 0 rows."
    done = subprocess.run([sys.executable, __file__, "--child", how, str(rows)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def peak_mb() -> float:
    "Peak of this process. Linux's own line: `getrusage` counts the parent that it was forked from."
    status = Path("/proc/self/status")
    if status.exists():
        return float(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(how: str, rows: int) -> None:
    import pandera.pandas  # noqa: F401  (the contract's engine: imported in every measurement, whether there are rows or not)
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as name:
        folder, contracts = Path(name), load_contracts(CONTRACTS)
        store = Store(folder / "x.db")
        path = folder / "ohlcv" / "binance" / "BTCUSDT-15m.parquet"
        path.parent.mkdir(parents=True)
        if how == "pages":
            with store.ingest(KEY, FROM) as write:
                for at in range(0, rows, 1000):
                    write(bars(1000, at))
        elif rows:
            first = pa.Table.from_pandas(bars(1).drop(columns="available_time").rename_axis("timestamp").reset_index(), preserve_index=False)
            with pq.ParquetWriter(path, first.schema) as writer:
                for at in range(0, rows, 50_000):
                    frame = bars(50_000, at).drop(columns="available_time").rename_axis("timestamp").reset_index()
                    writer.write_table(pa.Table.from_pandas(frame, schema=first.schema, preserve_index=False))
            ingest_file(path, store, contracts)
    print(peak_mb())


def report(took: dict[str, float], peaks: dict[str, dict[str, float]]) -> str:
    "The page."
    write, read = took["write 1,000,000, store"] / took["write 1,000,000, bare sqlite3"], took["read 20 × 50,000, store"] / took["read 20 × 50,000, bare sqlite3"]
    again, file = took["write 1,000,000, store"] / took["write the same again, store"], took["ingest a file of 1,000,000"] / took["ingest it again"]
    lines = ["# Store", "", f"Beside bare `sqlite3`, in one run, in turns; {platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}. "
             "The peer has the same columns, key and settings, one transaction, and checks nothing. Made by `python benchmarks/store.py`.", "",
             "| what | ratio | aim |", "|---|---:|---:|", f"| 1,000,000 candles upserted, in units of bare `executemany` | {write:.2f} | ≤ 2 |",
             f"| 20 pairs × 50,000 bars read into frames, in units of bare `sqlite3` | {read:.2f} | ≤ 1.5 |",
             f"| the same million upserted again, times faster than the first | {again:.1f} | ≥ 5 |",
             f"| the same file ingested again, times faster than the first | {file:.0f} | ≥ 5 |", "", "| what | seconds |", "|---|---:|",
             *(f"| {name} | {seconds:.3f} |" for name, seconds in took.items()), "",
             "Peak memory of a process that ingests one history, MB:", "", "| rows | " + " | ".join(peaks) + " |", "|---:|" + "---:|" * len(peaks),
             *(f"| {int(rows):,} | " + " | ".join(f"{peaks[how][rows]:.0f}" for how in peaks) + " |" for rows in next(iter(peaks.values()))), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--postgres", help="URL of an empty database, for information")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        took = speeds(Path(name), options.runs, options.postgres) | files(Path(name))
    peaks = {how: {str(rows): memory(how, rows) for rows in (0, 250_000, 1_000_000, 4_000_000)} for how in ("pages", "Parquet")}
    page = report(took, peaks)
    print(page)
    if options.out:
        (options.out / "store.md").write_text(page)
        (options.out / "store.json").write_text(json.dumps({"seconds": took, "peak_mb": peaks}, indent=2) + "\n")


if __name__ == "__main__":
    main()

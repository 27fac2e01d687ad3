"""What columns mean and when rows happened, in every way people write it down."""

import json
import zoneinfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms, to_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.data.files import infer_timeframe, parse_times, read_file

from .conftest import make_bars

HOUR = 3_600_000


def ms_list(frame):
    return to_ms(frame.index).tolist()


WAYS = {
    "parquet.parquet": lambda b, p: b.to_parquet(p),
    "feather.feather": lambda b, p: b.reset_index().to_feather(p),
    "freqtrade.feather": lambda b, p: b.rename_axis("date").reset_index().to_feather(p),
    "offset.csv": lambda b, p: b.tz_convert("Asia/Kathmandu").to_csv(p),
    "naive.csv": lambda b, p: b.tz_localize(None).to_csv(p),
    "naive.parquet": lambda b, p: b.tz_localize(None).to_parquet(p),
    "crlf-bom.csv": lambda b, p: p.write_bytes(b"\xef\xbb\xbf" + b.to_csv(lineterminator="\r\n").encode()),
    "semicolons.csv": lambda b, p: b.to_csv(p, sep=";"),
    "seconds.csv": lambda b, p: b.assign(ts=to_ms(b.index) // 1000).to_csv(p, index=False),
    "ms.csv": lambda b, p: b.assign(open_time=to_ms(b.index), close_time=to_ms(b.index) + HOUR - 1).to_csv(p, index=False),
    "us.csv": lambda b, p: b.assign(timestamp=to_ms(b.index) * 1000).to_csv(p, index=False),
    "ns.csv": lambda b, p: b.assign(unix=to_ms(b.index) * 10**6).to_csv(p, index=False),
    "closes-only.csv": lambda b, p: b.assign(**{"Close Time": to_ms(b.index) + HOUR - 1}).to_csv(p, index=False),
    "closes-on-the-hour.csv": lambda b, p: b.assign(close_time=from_ms(to_ms(b.index) + HOUR)).to_csv(p, index=False),
    "yahoo-order.csv": lambda b, p: b[["close", "high", "low", "open", "volume"]].rename(columns=str.title).rename_axis("Date").to_csv(p),
    "more-columns.csv": lambda b, p: b.assign(quote_volume=1, trades=2, note="x").to_csv(p),
    "records.json": lambda b, p: p.write_text(json.dumps([{"date": t.isoformat(), **r} for t, r in zip(b.index, b.to_dict("records"))])),
    "columns.json": lambda b, p: p.write_text(json.dumps({"timestamp": ms_list(b), **{c: b[c].tolist() for c in b}})),
    "pandas.json": lambda b, p: p.write_text(json.dumps({c: dict(zip(map(str, ms_list(b)), b[c].tolist())) for c in b})),
    "ccxt.json": lambda b, p: p.write_text(json.dumps([[t, *r] for t, r in zip(ms_list(b), b.to_numpy().tolist())])),
    "texts.json": lambda b, p: p.write_text(json.dumps([[str(t), *map(repr, r)] for t, r in zip(ms_list(b), b.to_numpy().tolist())])),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_same_bars_in_every_way(tmp_path, bars, name):
    WAYS[name](bars, tmp_path / name)
    pd.testing.assert_frame_equal(read_file(tmp_path / name, "candles"), bars, check_freq=False, check_exact=True)


def test_other_kinds_and_their_names(tmp_path):
    stamps = np.arange(3) * 8 * HOUR + 1_704_067_200_000
    (tmp_path / "f.json").write_text(json.dumps([{"fundingTime": int(t), "fundingRate": "0.0001"} for t in stamps]))
    (tmp_path / "g.json").write_text(json.dumps([[int(t), 0.0001] for t in stamps]))
    for name in ("f.json", "g.json"):
        assert read_file(tmp_path / name, "funding")["funding_rate"].tolist() == [1e-4] * 3
    (tmp_path / "oi.json").write_text(json.dumps([{"timestamp": int(t), "sumOpenInterest": "5", "sumOpenInterestValue": "10.5"} for t in stamps]))
    assert read_file(tmp_path / "oi.json", "open_interest").iloc[0].to_dict() == {"open_interest": 5.0, "open_interest_value": 10.5}


def csv(tmp_path, text):
    (tmp_path / "BTCUSDT-1h.csv").write_text(text)
    return tmp_path / "BTCUSDT-1h.csv"


HEAD = "timestamp,open,high,low,close,volume\n"


@pytest.mark.parametrize(("text", "words"), [
    ("", "the file is empty"),
    (HEAD, "a header and no rows"),
    ("timestamp,open,high,low,volume\n2024-01-01,1,1,1,1\n", "column 'close' is missing"),
    ("open,high,low,close,volume\n1,1,1,1,1\n", "no column of times"),
    (HEAD + "2024-01-01,1,1,1,1,1\n2024-01-02,1,1,oops,1,1\n", "row 2: low is 'oops'"),
    (HEAD + "2024-01-01,1,1,1,1,1\n2024-13-02,1,1,1,1,1\n", "row 2: '2024-13-02' is not a time"),
    (HEAD + "2024-01-01,1,1,1,1,1\n,1,1,1,1,1\n", "row 2: the time is missing"),
    (HEAD + "2024-01-01 00:00:00Z,1,1,1,1,1\n2024-01-01 01:00:00,1,1,1,1,1\n", "row 2: .* has no zone"),
    (HEAD + "2024-01-01 00:00:00+00:00,1,1,1,1,1\n2024-01-01 04:00:00+03:00,1,1,1,1,1\n", "row 2: .*mixed time zones"),
    (HEAD + "1704067200,1,1,1,1,1\n1704070800000,1,1,1,1,1\n", "row 2: time 1.7040708e.12 is not an epoch in s"),
    (HEAD + "17,1,1,1,1,1\n", "row 1: '17' is not a time"),
    (HEAD + "01/02/2024,1,1,1,1,1\n", "row 1: '01/02/2024' is not a time"),
    (HEAD + "2024-01-01,1,1,1,1,1,1,1\n2024-01-02,1,1,1,1,1,1,1,1\n", "not readable as csv"),
])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as e:
        read_file(csv(tmp_path, text), "candles")
    assert "BTCUSDT-1h.csv" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(("name", "content"), [
    ("x.parquet", b"PAR1 and then nothing"), ("x.feather", b"ARROW1?"), ("x.json", b'[{"open": 1'), ("x.json", b'{"a": 1}'),
    ("x.json", b"[[1, 2, 3]]"), ("x.csv", b"\xff\xfe\x00\x01binary"), ("x.json", b"3")])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^{name}: not readable as"):
        read_file(tmp_path / name, "candles")


def test_a_missing_file_and_an_unknown_format(tmp_path, bars):
    bars.to_csv(tmp_path / "BTCUSDT-1h.csv")
    with pytest.raises(InputError, match="did you mean 'BTCUSDT-1h.csv'"):
        read_file(tmp_path / "BTCUSD-1h.csv", "candles")
    with pytest.raises(InputError, match=r"'\.xlsx' is not a format"):
        read_file(tmp_path / "x.xlsx", "candles")


def test_naive_times_only_where_the_contract_says_so(tmp_path, bars):
    for name in ("naive.csv", "naive.parquet"):
        WAYS[name](bars, tmp_path / name)
        with pytest.raises(InputError, match="has no time zone"):
            read_file(tmp_path / name, "candles", naive="refuse")


@given(start=st.integers(1_300_000_000, 1_800_000_000), n=st.integers(2, 40),
       zone=st.sampled_from(["UTC", "America/New_York", "Asia/Jerusalem", "Australia/Lord_Howe", "Asia/Kolkata", "Europe/London"]))
@settings(max_examples=40, deadline=None)
def test_any_local_clock_reads_as_utc(start, n, zone):
    ms = (start + np.arange(n) * 86_400 * 9) * 1000  # over daylight saving and back
    text = pd.Series(from_ms(ms).tz_convert(zoneinfo.ZoneInfo(zone)).astype(str))
    assert parse_times(text, "file").tolist() == ms.tolist()


@given(row=st.integers(1, 46), offset=st.sampled_from(["+03:00", "-08:00", "+05:30"]))
@settings(max_examples=15, deadline=None)
def test_a_single_row_in_another_zone_is_found(row, offset):
    times = pd.Series(make_bars().index.astype(str))
    local = make_bars().index[row].tz_convert(f"UTC{offset}")
    times.iloc[row] = str(local)
    with pytest.raises(InputError, match=f"row {row + 1}: .*mixed time zones"):
        parse_times(times, "file")


@pytest.mark.parametrize(("minutes", "timeframe"), [(15, "15m"), (60, "1h"), (240, "4h"), (1440, "1d"), (5, "5m")])
def test_timeframe_from_the_commonest_step(minutes, timeframe):
    ms = np.delete(np.arange(30) * minutes * 60_000, [4, 5, 11])
    assert infer_timeframe(ms) == timeframe


def test_no_timeframe_to_infer():
    with pytest.raises(InputError, match="is no timeframe"):
        infer_timeframe(np.array([0]))


def test_a_filtered_parquet_keeps_its_columns(tmp_path):
    frame = pd.DataFrame({"timestamp": pd.date_range("2024-01-01", periods=4, freq="h", tz="UTC"), "open": 1.0, "high": 1.0, "low": 1.0,
                          "close": 1.0, "volume": 1.0})
    frame[frame.index != 1].to_parquet(tmp_path / "holes.parquet")  # row numbers 0, 2, 3 are kept as an index
    assert len(read_file(tmp_path / "holes.parquet", "candles", timeframe="1h")) == 3


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.feather", "a.json"])
def test_a_filled_bar_keeps_its_flag(tmp_path, name):
    marked = make_bars(6).assign(is_filled=[False, False, True, True, False, False])
    write = {"parquet": marked.to_parquet, "csv": marked.to_csv, "feather": marked.reset_index().to_feather,
             "json": lambda p: marked.reset_index().to_json(p, orient="records", date_format="iso")}[name.split(".")[1]]
    write(tmp_path / name)
    frame = read_file(tmp_path / name, "candles")
    assert frame["is_filled"].dtype == bool and frame["is_filled"].tolist() == marked["is_filled"].tolist()
    assert "is_filled" not in read_file(tmp_path / name, "daily")


def test_a_flag_that_is_neither_true_nor_false_is_named(tmp_path):
    make_bars(4).assign(is_filled=["False", "perhaps", "True", "False"]).to_csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match="row 2: is_filled is 'perhaps'"):
        read_file(tmp_path / "a.csv", "candles")

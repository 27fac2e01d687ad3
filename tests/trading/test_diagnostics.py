"""The waterfall in cents, and cuts that only know the past."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cryptoalgo.core.errors import InputError
from cryptoalgo.trading.conditions import regimes
from cryptoalgo.trading.diagnostics import NANO, cuts, diagnose, to_cents, waterfall, with_outcomes
from cryptoalgo.trading.engine import PARTS

from .markets import candles, cases, decisions_frame, frame, run_engine

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@given(table=arrays(float, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-1e6, 1e6)))
def test_cents_add_up_and_stay_near(table):
    cents = to_cents(np.rint(table * NANO).astype("int64"))
    assert np.allclose(cents * 100, np.round(cents * 100), atol=1e-6)
    assert np.abs(cents - table).max() <= 0.02 + 1e-6
    assert np.abs(cents.sum(axis=0) - table.sum(axis=0)).max() <= 0.01 + 1e-6
    assert np.abs(cents.sum(axis=1) - table.sum(axis=1)).max() <= 0.01 + 1e-6
    assert abs(cents.sum() - table.sum()) <= 0.005 + 1e-6


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e10])
def test_large_sums_reconcile_too_and_what_cannot_is_refused(scale):
    rng = np.random.default_rng(1)
    trades = pd.DataFrame(rng.normal(0, scale, (200, 4)), columns=PARTS[:-1]).assign(net=0.0)
    table = waterfall(trades, pd.Series(rng.integers(0, 4, 200)))
    sums = trades[PARTS[:-1]].sum()
    assert np.allclose(table.loc["total", PARTS[:-1]].astype(float), sums, rtol=0, atol=0.02 + 1e-13 * np.abs(trades.to_numpy()).sum())
    assert table.loc["total", "net"] == pytest.approx(table.iloc[:-1]["net"].sum(), abs=0.005 + 1e-15 * scale)
    with pytest.raises(InputError, match="to the cent"):
        waterfall(trades * 1e17)


@relaxed
@given(case=cases())
def test_the_waterfall_reconciles_to_the_cent_in_every_cut(case):
    trades = run_engine(*case).trades
    whole = waterfall(trades)
    for cut, labels in cuts(trades, {s: frame(b) for s, b in case[0].items()}).items():
        assert labels.index.equals(trades.index) and cut in ("exit_reason", "side", "hour", "regime", "symbol")
        table = waterfall(trades, labels)
        cents = (table[PARTS] * 100).round().astype("int64")
        assert (cents[PARTS[:-1]].sum(axis=1) == cents["net"]).all()
        assert (cents.drop(index="total").sum() == cents.loc["total"]).all()
        assert (table.loc["total", PARTS] - trades[PARTS].sum()).abs().max() <= 0.01 + 1e-9
        assert table.loc["total"].tolist() == whole.loc["total"].tolist()  # the same total in every cut


@given(half=st.lists(st.sampled_from([0.005, -0.005, 0.015, 0.1, 0.2, 0.3]), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_a_half_cent_goes_the_same_way_in_every_cut(half, seed):
    trades = pd.DataFrame(dict.fromkeys(PARTS, half))
    cut = pd.Series(np.random.default_rng(seed).integers(0, 4, len(half)), trades.index)
    assert waterfall(trades, cut).loc["total"].tolist() == waterfall(trades).loc["total"].tolist()


@relaxed
@given(case=cases())
def test_every_signal_and_trade_is_in_the_diagnosis(case):
    result = run_engine(*case)
    found = [diagnose(result, {s: frame(b)}) for s, b in case[0].items()]
    json.dumps(found)
    assert sum(d["n_trades"] for d in found) == len(result.trades)
    assert sum(d["n_signals"] for d in found) == len(case[2])
    for d in found:
        for cut in ("by_exit_reason", "by_side", "by_hour", "by_regime"):
            assert sum(row["n_trades"] for row in d[cut].values()) == d["n_trades"]
    total = pd.Series([d["rejected"] for d in found]).map(lambda r: sum(r.values())).sum()
    assert total == sum(result.rejected.values())


@relaxed
@given(case=cases(), seed=st.integers(0, 99))
def test_what_a_filter_turned_away_is_counted_beside_what_the_engine_did(case, seed):
    bars, events, decisions, configs = case
    turned = np.random.default_rng(seed).choice(["", "", "momentum", "funding"], len(decisions))
    result = run_engine(bars, events, [d for d, name in zip(decisions, turned) if not name], configs)
    signals = decisions_frame(decisions)[["event_time", "symbol", "side"]].assign(filter=pd.Series(turned, dtype="str"))
    told = with_outcomes(signals, result)
    assert (told["outcome"] == "").sum() == 0 and told["outcome"].notna().all()
    assert (told.loc[turned != "", "outcome"] == turned[turned != ""]).all()
    found = diagnose(result, {s: frame(b) for s, b in bars.items()}, signals)
    by_filter = {name: int((turned == name).sum()) for name in ("funding", "momentum") if (turned == name).any()}
    assert found["rejected"] == dict(sorted((by_filter | result.rejected).items())) and found["n_signals"] == len(decisions)
    assert found["n_signals"] - sum(found["rejected"].values()) == (told["outcome"] == "accepted").sum()


def test_regimes_never_look_ahead():
    bars = frame(candles(np.random.default_rng(2), 1200, 1_700_000_000_000 // 3_600_000 * 3_600_000))
    whole = regimes(bars)
    assert set(whole) > {"unknown"} and whole.index[0] == bars.index[0]
    for cut in (300, 700, 1000):
        part = regimes(bars.iloc[:cut])
        assert part.tolist() == whole.iloc[: len(part)].tolist()

"""Grids against the account, combination by combination: by tables and by the kernel, on random markets and rules."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalgo.core.errors import InputError
from cryptoalgo.trading import engine
from cryptoalgo.trading.config import EngineConfig
from cryptoalgo.trading.market import prepare
from cryptoalgo.trading.scores import score

from .markets import cases, decisions_frame, frame
from .test_scores import one_coin, scalars_of

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
PLAIN = {"breakeven_sigma": None, "trail_sigma": None, "flip_exit": False, "maintenance_margin": None, "leverage": None}


def sets_of(prepared, table, config):
    "Two sets that share σ, and one with a σ of its own for the same bars."
    whole = engine.decisions_of(prepared, table, config)
    thin = engine.decisions_of(prepared, table.iloc[::3], config)
    return {"all": whole, "some": thin, "wild": whole._replace(sigma=whole.sigma * 2)}


def same(found: pd.Series, wanted: dict) -> None:
    for name, value in wanted.items():
        if name.startswith(("n_", "held")):
            assert found[name] == value, name
        elif name != "max_drawdown" or found["by"] == "kernel":
            assert np.isclose(found[name], value, rtol=1e-9 if name != "sharpe_daily" else 1e-6, atol=1e-8, equal_nan=True), name
        else:
            assert np.isnan(found[name])


@relaxed
@given(case=cases(coins=st.just(1)), seed=st.integers(0, 2**16), moves=st.booleans())
def test_every_combination_is_what_the_account_would_have_done(case, seed, moves):
    prepared, table, config = one_coin(case)
    if not moves:
        config = EngineConfig.model_validate(config.model_dump() | PLAIN)
    rng, n = np.random.default_rng(seed), 12
    axes = pd.DataFrame({
        "decisions": rng.choice(["all", "some", "wild"], n), "vol_mult_sl": rng.choice([0.3, 1.0, 1.1, 2.5, np.nan], n),
        "vol_mult_tp": rng.choice([0.4, 1.0, 2.5, np.nan], n), "max_hold_bars": rng.choice([1, 2, 7, 30, np.nan], n),
        "cooldown_bars": rng.choice([0, 1, 5], n), "slippage_bps": rng.choice([0.0, 30.0], n), "ambiguity": rng.choice(["worst", "best"], n)})
    sets = sets_of(prepared, table, config)
    found = engine.grid(prepared, sets, config, axes)
    still = all(getattr(config, key) == PLAIN[key] for key in ("breakeven_sigma", "trail_sigma", "flip_exit", "maintenance_margin"))
    assert set(found["by"]) == {"tables" if still and not config.size.profile else "kernel"}
    for _, row in found.iterrows():
        keys = {k: None if pd.isna(row[k]) else row[k] for k in axes.columns if k != "decisions"}
        one = EngineConfig.model_validate(config.model_dump() | keys)
        same(row, score(prepared, sets[row["decisions"]], one))
    row = found[found["decisions"] != "wild"].iloc[:1]
    for _, first in row.iterrows():  # and the account itself, once
        keys = {k: None if pd.isna(first[k]) else first[k] for k in axes.columns if k != "decisions"}
        one = EngineConfig.model_validate(config.model_dump() | keys)
        same(first, scalars_of(engine.simulate(prepared, table if first["decisions"] == "all" else table.iloc[::3], one)))


BARS = [{"time": 3_600_000 * i, "open": 100.0, "high": 101.0 + i % 3, "low": 99.0 - i % 2, "close": 100.0, "filled": False} for i in range(40)]
PREPARED = prepare({"X": frame(BARS)})
TABLE = decisions_frame([{"time": 3_600_000 * i, "symbol": "X", "side": 1, "rank": None, "vol": 0.01} for i in range(5, 30)])
CONFIG = engine.read_config({"fee_bps": 1, "slippage_bps": 0, "vol_mult_sl": 2, "vol_mult_tp": 3, "max_hold_bars": 4, "size": {"notional_usd": 1000}})
SETS = {"d": engine.decisions_of(PREPARED, TABLE, CONFIG)}


@pytest.mark.parametrize("keys, by", [
    ({}, "tables"), ({"max_hold_bars": [None]}, "tables"), ({"vol_mult_sl": [None], "vol_mult_tp": [None]}, "tables"), ({"ambiguity": ["best"]}, "tables"),
    ({"min_notional_usd": [2000.0]}, "tables"), ({"flip_exit": [True]}, "kernel"), ({"trail_sigma": [1.0]}, "kernel"), ({"breakeven_sigma": [1.0]}, "kernel"),
    ({"maintenance_margin": [0.01]}, "kernel"), ({"maintenance_margin": [0.01], "leverage": [2.0]}, "kernel"),
])
def test_tables_where_the_rules_allow_them_the_kernel_otherwise(keys, by):
    found = engine.grid(PREPARED, SETS, CONFIG, pd.DataFrame({"decisions": ["d"]} | keys))
    assert found["by"].tolist() == [by]
    same(found.iloc[0], score(PREPARED, SETS["d"], EngineConfig.model_validate(CONFIG.model_dump() | {k: v[0] for k, v in keys.items()})))


def test_a_size_that_follows_the_equity_walks_the_kernel():
    profile = engine.read_config(CONFIG.model_dump() | {"size": {"profile": True}})
    assert engine.grid(PREPARED, SETS, profile, pd.DataFrame({"vol_mult_sl": [1.0]}))["by"].tolist() == ["kernel"]


def test_combinations_keep_their_order_and_their_index():
    axes = pd.DataFrame({"trail_sigma": [None, 1.0, None], "vol_mult_sl": [1.0, 2.0, 3.0]}, index=[7, 3, 5])
    found = engine.grid(PREPARED, SETS, CONFIG, axes)
    assert found.index.tolist() == [7, 3, 5] and found["by"].tolist() == ["tables", "kernel", "tables"]
    pd.testing.assert_frame_equal(found[axes.columns], axes)


@pytest.mark.parametrize("axes, says", [
    ({"vol_mult_sll": [1.0]}, "did you mean 'vol_mult_sl'"), ({"size": [1]}, "cannot vary"), ({"vol_mult_sl": [-1.0]}, "vol_mult_sl"),
    ({"decisions": ["e"]}, "no set of decisions e; known: d"), ({"maintenance_margin": [0.1], "leverage": [20.0]}, "use less leverage"),
    ({"max_hold_bars": [0]}, "max_hold_bars"), ({"ambiguity": ["no"]}, "ambiguity"),
])
def test_a_wrong_combination_is_refused_in_one_line(axes, says):
    with pytest.raises(InputError) as e:
        engine.grid(PREPARED, SETS, CONFIG, pd.DataFrame(axes))
    assert says in str(e.value) and "\n" not in str(e.value)


def test_a_grid_is_of_one_coin():
    two = prepare({"X": frame(BARS), "Y": frame(BARS)})
    with pytest.raises(InputError, match="one at a time"):
        engine.grid(two, SETS, CONFIG, pd.DataFrame({"vol_mult_sl": [1.0]}))


def test_no_combination_and_no_decision_are_answers():
    assert len(engine.grid(PREPARED, SETS, CONFIG, pd.DataFrame({"vol_mult_sl": pd.Series(dtype=float)}))) == 0
    nothing = {"none": engine.decisions_of(PREPARED, TABLE.iloc[:0], CONFIG)}
    for keys in ({"vol_mult_sl": [1.0]}, {"trail_sigma": [1.0]}):
        found = engine.grid(PREPARED, nothing, CONFIG, pd.DataFrame(keys))
        assert found["n_trades"].tolist() == [0] and found["net"].tolist() == [0.0] and found["sharpe_daily"].isna().all()

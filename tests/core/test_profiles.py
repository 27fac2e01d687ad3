"""Venues, coins, archetypes: whole files, numbers with sources, and what a misspelt name gets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cryptoalgo.core.errors import InputError
from cryptoalgo.core.params import Issue, load_issue, resolve
from cryptoalgo.core.profiles import NUMBERS, VenueSchedule, load_costs
from cryptoalgo.core.sections import CostParams, FilterParams

PARAMS = Path(__file__).resolve().parents[2] / "params"
VENUES = yaml.safe_load((PARAMS / "venues.yaml").read_text())
TRACKED = ("BTC", "ETH", "SOL", "XRP", "DOGE")
ARCHETYPES = sorted(p.stem for p in (PARAMS / "archetypes").glob("*.yaml"))


def issue(**params) -> Issue:
    return Issue(issue=1, name="x", title="x", question="x", coins=TRACKED, timeframes=("1h",), params=params)


@pytest.mark.parametrize("venue", VENUES)
def test_every_number_of_a_venue_has_a_date_and_a_source(venue):
    schedule = VenueSchedule.model_validate(VENUES[venue])
    for name in NUMBERS:
        if getattr(schedule, name) is not None:
            assert schedule.sources[name].date and len(schedule.sources[name].text) > 10
    for tier in schedule.tiers:
        costs = load_costs(PARAMS / "venues.yaml", CostParams(venue=venue, tier=tier))
        for coin in TRACKED:
            assert 0 < costs.of("contract_units", coin) and 0 <= costs.of("maintenance_margin", coin) < 1 / costs.of("max_leverage", coin)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_without_a_source_does_not_load(tmp_path, name):
    values = yaml.safe_load((PARAMS / "venues.yaml").read_text())["coinbase"]
    del values["sources"][name]
    path = tmp_path / "venues.yaml"
    path.write_text(yaml.safe_dump({"coinbase": values}))
    with pytest.raises(InputError, match=f"{name} has no date and source"):
        load_costs(path, CostParams(venue="coinbase", tier="regular"))


@pytest.mark.parametrize("units", [{"BTC": 0.01, "*": 1}, 1.0])
def test_a_contract_that_is_not_listed_cannot_be_one_by_accident(tmp_path, units):
    path = tmp_path / "venues.yaml"
    path.write_text(yaml.safe_dump({"coinbase": VENUES["coinbase"] | {"contract_units": units}}))
    with pytest.raises(InputError, match="contract_units"):
        load_costs(path, CostParams(venue="coinbase", tier="regular"))


@pytest.mark.parametrize("venue", ("binance", "binanceusdm", "bybit", "simulator"))
def test_every_pair_of_the_universe_has_its_contract_and_no_other_coin_has_one(venue):
    costs = load_costs(PARAMS / "venues.yaml", CostParams(venue=venue, tier="regular"))
    assert set(costs.contract_units) == set(yaml.safe_load((PARAMS / "universe.yaml").read_text())["coins"])
    with pytest.raises(InputError, match=f"{venue} lists none"):
        costs.of("contract_units", "SHIB")


def test_the_predecessors_schedules_of_coinbase():
    first, later = (load_costs(PARAMS / "venues.yaml", CostParams(venue="coinbase", tier=t)) for t in ("regular", "per_contract"))
    assert (first.fee_bps, first.of("min_fee_usd_per_contract", "BTC"), later.fee_bps, later.slippage_bps) == (10, 0.2, 0, 2)
    assert [later.of("min_fee_usd_per_contract", c) for c in ("BTC", "ETH", "SOL", "LTC")] == [0.75, 0.75, 0.1, 0.1]
    units = {"BTC": 0.01, "ETH": 0.1, "SOL": 5, "XRP": 500, "DOGE": 5000, "AVAX": 5, "LINK": 10, "LTC": 1}
    assert {coin: first.of("contract_units", coin) for coin in units} == units
    with pytest.raises(InputError, match="lists none"):
        first.of("contract_units", "BNB")


# threshold, AUC, label horizon and target, least momentum, TP, SL, hold, cool-down, volatility band, size: seeds-facts.md
PROFILES = {
    "BTC": (0.88, 0.56, 36, 1.8, 0.12, 7.0, 2.5, 72, 48, 0.006, 0.045, 0.10), "ETH": (0.82, 0.54, 24, 1.8, 0.08, 5.8, 3.0, 72, 24, 0.008, 0.06, 0.15),
    "SOL": (0.84, 0.54, 24, 1.6, 0.08, 6.0, 3.5, 96, 36, 0.010, 0.08, 0.12), "XRP": (0.84, 0.54, 24, 1.8, 0.08, 6.0, 3.0, 108, 24, 0.008, 0.06, 0.15),
    "DOGE": (0.86, 0.55, 12, 1.4, 0.12, 5.5, 3.0, 72, 36, 0.012, 0.10, 0.08)}


@pytest.mark.parametrize("coin", TRACKED)
def test_a_coin_has_its_predecessors_numbers_whole(coin):
    p = resolve(PARAMS, issue(), coin)
    r, f = p.rules, p.rules.filters
    assert PROFILES[coin] == (r.threshold, p.model.min_auc, p.labels.horizon_bars, p.labels.target_sigma, f.min_momentum, r.vol_mult_tp, r.vol_mult_sl,
                              r.max_hold_bars, r.cooldown_bars, f.min_sigma, f.max_sigma, r.size["position_size"])
    assert p.splits.embargo_bars >= p.labels.horizon_bars and r.archetype in ARCHETYPES and r.size["profile"] and p.search.tier in ("major", "alt", "meme")
    assert f.same_sign and (f.margin, f.max_correlation, f.trend_bars) == (0.02, 0.75, 200)


def test_an_archetype_lies_above_the_base_and_below_the_coin():
    assert len(ARCHETYPES) == 5
    base = {n: resolve(PARAMS, issue(), "LTC", [f"rules.archetype={n}"] if n else []) for n in ("", *ARCHETYPES)}
    assert len({p.hash for p in base.values()}) == 6  # each changes something
    quiet = resolve(PARAMS, issue(), "DOGE", ["rules.archetype=compression_breakout"])
    assert quiet.rules.filters.regimes == ("low_vol/up", "low_vol/down") and quiet.rules.vol_mult_tp == 5.5  # the coin's own target
    assert resolve(PARAMS, issue(rules={"vol_mult_tp": 9.0}), "DOGE").rules.vol_mult_tp == 9.0
    with pytest.raises(InputError, match=r"no such archetype \(did you mean 'meme'"):
        resolve(PARAMS, issue(rules={"archetype": "mems"}), "DOGE")


@pytest.mark.parametrize("file", ["001-demo.yaml", "002-baseline.yaml"])
@pytest.mark.parametrize("coin", TRACKED)
def test_the_demo_and_the_baseline_keep_their_own_rules(file, coin):
    p = resolve(PARAMS, load_issue(PARAMS / "issues" / file), coin)
    r = p.rules
    hold = {"BTC": 36, "DOGE": 12}.get(coin, 24)
    assert (p.labels.kind, p.labels.up_sigma, p.labels.down_sigma, p.labels.horizon_bars, p.labels.vol_bars) == ("triple_barrier", 4, 4, hold, 24)
    m = p.model
    assert (m.name, m.n_estimators, m.max_depth, m.num_leaves, m.learning_rate, m.min_child_samples, m.lambda_l1, m.max_bin, m.calibration, m.min_auc) == (
        "lightgbm", 150, 3, 8, 0.05, 50, 0.1, 63, "isotonic", 0.5)
    assert (r.side, r.threshold, r.long, r.short, r.vol_mult_tp, r.vol_mult_sl, r.max_hold_bars, r.cooldown_bars, r.size["notional_usd"]) == (
        "model", 0.55, True, True, 4, 4, hold, 0, 50_000)
    off = r.filters.model_copy(update={"momentum_bars": (24, 72), "funding_events": 90, "correlation_bars": 72})
    assert off == type(off)() and r.breakeven_sigma is None and r.trail_sigma is None and r.archetype is None


def test_bars_of_four_hours_need_more_days_to_learn_from_and_nothing_else_of_their_own():
    hour, four = resolve(PARAMS, issue(), "ETH"), resolve(PARAMS, issue(), "ETH", timeframe="4h")
    rows = [p.search.min_train_days * n for p, n in ((hour, 24), (four, 6))]
    assert rows[0] <= rows[1] and four.splits.min_train_days > hour.splits.min_train_days
    assert (four.rules, four.labels, four.model) == (hour.rules, hour.labels, hour.model)
    assert resolve(PARAMS, issue(), "ETH", timeframe="15m") == hour


@pytest.mark.parametrize(("timeframe", "factor"), [("15m", 0.5), ("1h", 1.0), ("4h", 2.0)])
def test_bounds_of_filters_are_those_of_an_hour(timeframe, factor):
    "A random walk: moves grow with the root of time, so a bound turns away the same share at every length of bar."
    rng = np.random.default_rng(3)
    quarter = pd.Series(rng.normal(0, 0.004, 40_000))
    per_bar = quarter.groupby(np.arange(quarter.size) // int(4 * factor**2)).sum()
    hourly = FilterParams(min_sigma=0.008, max_sigma=0.06, min_momentum=0.07, max_spread=0.12)
    there = hourly.at(timeframe)
    assert there.min_sigma == pytest.approx(per_bar.std(), rel=0.02) and there.max_spread == hourly.max_spread
    assert (there.max_sigma, there.min_momentum) == pytest.approx((0.06 * factor, 0.07 * factor))
    assert FilterParams().at(timeframe) == FilterParams()

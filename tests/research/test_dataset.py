"""A dataset is certified and kept group by group: a change recomputes what it touches, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import DAY_MS
from cryptoalgo.core.errors import GateError, InputError
from cryptoalgo.core.ledger import Span
from cryptoalgo.core.params import load_issue, resolve
from cryptoalgo.core.sections import FeatureParams
from cryptoalgo.core.profiles import load_costs
from cryptoalgo.features import indicators
from cryptoalgo.features.context import Part
from cryptoalgo.features.registry import FeatureSet, Registry
from cryptoalgo.research import dataset as room
from cryptoalgo.research.series import Experiment, last_moment, read_raw

PARAMS = Path(__file__).resolve().parents[2] / "params"
SMALL = ["simulator.days=240", "splits.min_train_days=100", "splits.n_folds=2", "validation.holdout_days=30", "validation.holdout_interval_days=30"]


def experiment(coin="ETH", groups=("momentum", "trend", "funding_oi", "costs", "macro"), extra=("cross_coin",), **params) -> Experiment:
    "A coin of the demo market, with a holdout of thirty days."
    p = resolve(PARAMS, load_issue(PARAMS / "issues" / "001-demo.yaml"), coin, SMALL)
    p = p.model_copy(update={"features": FeatureParams(groups=groups, extra=extra), **params})
    x = Experiment(coin, "1h", p, load_costs(PARAMS / "venues.yaml", p.costs), Span(0, 0))
    end = last_moment(x, None)
    return replace(x, holdout=Span(end - 30 * DAY_MS, end))


X = experiment()
DATA = room.prepare(X, read_raw(X, None, {}, None, X.holdout.start_ms))


class Memory:
    "A place to keep results that remembers what had to be made."

    def __init__(self):
        self.store, self.made = {}, []

    def __call__(self, stage, key, result, compute):
        if key not in self.store:
            self.store[key] = compute()
            assert type(self.store[key]) is result
            self.made.append(next(iter(getattr(self.store[key], "features", pd.DataFrame(columns=["labels"])))))
        return self.store[key]

    def again(self, x, data=DATA):
        "First columns of the groups that a run had to make; `labels` where it made those."
        self.made.clear()
        room.build_dataset(x, data, self)
        return self.made


@pytest.fixture(scope="module")
def memory():
    m = Memory()
    assert len(m.again(X)) == 7  # six groups and the labels
    return m


def test_a_second_run_computes_nothing(memory):
    assert memory.again(X) == []


def test_what_a_run_reads_is_what_its_features_need():
    assert set(DATA.series.published) == {"funding", "open_interest", "btc", "macro"}
    assert set(DATA.series.macro["ticker"]) == {"SPY", "QQQ", "^VIX", "DX-Y.NYB", "GLD", "TLT"}
    plain = experiment(groups=("momentum",), extra=())
    raw = read_raw(plain, None, {}, None, plain.holdout.start_ms)
    assert raw.btc is None and raw.macro is None


def test_nothing_of_the_holdout_is_read():
    last = X.holdout.start_ms
    for frame in (DATA.series.bars, *DATA.series.published.values()):
        assert frame.index.max() < pd.Timestamp(last, unit="ms", tz="UTC")


@pytest.mark.parametrize(("change", "made"), [
    (lambda x: replace(x, costs=x.costs.model_copy(update={"fee_bps": 9.0})), ["fee_hurdle_pct"]),
    (lambda x: experiment(labels=x.params.labels.model_copy(update={"up_sigma": 3.0})), ["labels"]),
    (lambda x: experiment(weights=x.params.weights.model_copy(update={"signal_factor": 5.0})), ["labels"]),
    (lambda x: experiment(seed=1), []),
    (lambda x: experiment(groups=("momentum", "range")), ["range_position_24h"]),
])
def test_a_change_recomputes_what_it_touches(memory, change, made):
    assert memory.again(change(X)) == made


def test_other_values_of_a_series_recompute_the_groups_that_read_it(memory):
    series = DATA.series
    revised = replace(series, funding=series.funding.assign(funding_rate=lambda f: f["funding_rate"] + 1e-5))
    assert memory.again(X, replace(DATA, series=revised)) == ["funding_rate_bps"]
    revised = replace(series, macro=series.macro.assign(close=lambda f: f["close"] * 1.01))
    assert memory.again(X, replace(DATA, series=revised)) == ["spy_return_24h"]


def test_a_certificate_of_kept_parts_is_bound_to_the_data_at_hand(memory):
    other = replace(DATA, raw_digest="e" * 64)
    assert memory.again(X, other) == [] and room.build_dataset(X, other, memory).certificate["hashes"]["data"] == "e" * 64


def declared(width: float, scale: float = 1.0) -> FeatureSet:
    "Three groups: one reads a helper, one reads a feature of that group, one stands alone."
    r = Registry()

    def helper(x):
        return width * indicators.simple_return(x)

    @r.feature(group="one", meaning="by a helper")
    def first(close):
        return helper(close)

    @r.feature(group="two", meaning="by another feature")
    def second(first):
        return scale * first

    @r.feature(group="three", meaning="alone")
    def third(volume):
        return volume + 1.0

    return FeatureSet(registry=r)


def keys(features: FeatureSet) -> dict[str, str]:
    return {name: room._group_key(Part(part, 0.001), DATA.series, "1h") for name, part in features.by_group.items()}


def test_a_changed_helper_changes_the_groups_that_call_it_and_those_that_build_on_them():
    before, helper, own = keys(declared(1.0)), keys(declared(2.0)), keys(declared(1.0, 2.0))
    assert {g for g in before if before[g] != helper[g]} == {"one", "two"}
    assert {g for g in before if before[g] != own[g]} == {"two"}
    assert before == keys(declared(1.0))


def test_a_group_that_looks_ahead_stops_the_run_and_is_not_kept(monkeypatch):
    honest = Part.batch

    def forged(self, bars, published):
        out = honest(self, bars, published)
        return out.assign(adx=out["adx"].shift(-1)) if "adx" in out else out

    memory = Memory()
    monkeypatch.setattr(Part, "batch", forged)
    with pytest.raises(GateError, match=r"'adx' at bar 20.*adx"):
        memory.again(X)
    assert memory.made == ["return_1h"]  # the group before it


def test_the_certificate_covers_every_column_and_says_which_group(memory):
    found = room.build_dataset(X, DATA, memory).certificate
    c = found["coverage"]
    assert found["passed"] and c["columns"] == list(X.feature_set.names) and c["stretch"]["cuts"] == 24 * 14
    assert sum(g["columns"] for g in c["groups"].values()) == len(c["columns"]) and c["lookback"] == X.feature_set.lookback
    assert {"features", "labels", "data"} == set(found["hashes"]) and c["labels"]["labels"] > 0 and c["splits"]["folds"] == 2


def test_weights_follow_the_parameters():
    plain = room.build_dataset(experiment(groups=("trend",), extra=()), DATA).labels["weight"]
    signal = room.build_dataset(experiment(groups=("trend",), extra=(), weights=X.params.weights.model_copy(update={"signal_factor": 5.0})), DATA).labels["weight"]
    ratio = (signal / plain).dropna()
    assert np.isclose(plain.mean(), 1) and np.isclose(signal.mean(), 1) and np.isclose(ratio.max() / ratio.min(), 5)


def test_bitcoin_is_not_measured_against_itself():
    with pytest.raises(InputError, match="features of BTC: cross_coin"):
        experiment("BTC")

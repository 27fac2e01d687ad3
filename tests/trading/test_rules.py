"""From probabilities to signals: the whole chain of filters against plain Python, and nothing that looks ahead."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import from_ms
from cryptoalgo.core.errors import InputError
from cryptoalgo.core.sections import FilterParams, LabelParams, RulesParams
from cryptoalgo.features.labels import bar_sigma, direction_vote
from cryptoalgo.trading import conditions
from cryptoalgo.trading.conditions import REGIMES, context_bars, direction, regimes, rule_context
from cryptoalgo.trading.rules import FILTERS, SIGNAL_COLUMNS, decide, rank_coins

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
INDEX = pd.date_range("2024-01-01", periods=8, freq="1h", tz="UTC", unit="ms", name="event_time")
CONTEXT = pd.DataFrame({"is_filled": False, "sigma": 0.01, "short_return": 0.02, "long_return": 0.04, "trend": 0.1, "vote": 1.0, "funding_z": 0.0,
                        "regime": pd.Categorical(["mid_vol/up"] * 8, [*REGIMES, "unknown"])}, INDEX)


def rules(**changes) -> RulesParams:
    exits = {"vol_mult_tp": 4, "vol_mult_sl": 4, "max_hold_bars": 24, "cooldown_bars": 0, "flip_exit": False}
    account = {"max_positions": 5, "initial_equity_usd": 1e5, "size": {"notional_usd": 1e4}}
    return RulesParams(**({"threshold": 0.6, "long": True, "short": True} | exits | account | changes))


def label_params(**changes) -> LabelParams:
    return LabelParams(**({"kind": "direction_vote", "horizon_bars": 12, "up_sigma": 4, "down_sigma": 4, "vol_bars": 24} | changes))


def table(prob, symbol="X", context=CONTEXT, spread=None, **changes):
    answers = pd.DataFrame({"prob": prob} | ({} if spread is None else {"spread": spread}), index=INDEX[: len(prob)])
    return decide(answers, context, symbol, rules(**changes))


def test_both_thresholds_count_when_touched():
    assert table([0.6, 0.4, 0.59, 0.41, np.nan])[["event_time", "side"]].values.tolist() == [[INDEX[0], 1], [INDEX[1], -1]]


def test_a_side_that_is_off_never_trades():
    assert table([0.9, 0.1], short=False)["side"].tolist() == [1]
    assert table([0.9, 0.1], long=False)["side"].tolist() == [-1]
    assert table([0.9] * 3, context=CONTEXT.assign(vote=[1, -1] * 4), side="vote", long=False)["side"].tolist() == [-1]


def test_no_signal_on_a_filled_bar():
    context = CONTEXT.assign(is_filled=[True, False] * 4)
    assert table([0.9] * 8, context=context)["event_time"].tolist() == INDEX[1::2].tolist()


def test_the_vote_says_which_way_and_the_answer_how_likely():
    context = CONTEXT.assign(vote=[1.0, -1.0, 0.0, np.nan, 1.0, -1.0, 0.0, np.nan])
    found = table([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1], context=context, side="vote")
    assert found[["event_time", "side"]].values.tolist() == [[INDEX[0], 1], [INDEX[1], -1]]


NEVER = {"sigma": {"min_sigma": 0.0}, "long_return": {"min_momentum": 0.0}, "short_return": {"same_sign": True}, "trend": {"trend_bars": 5},
         "funding_z": {"max_funding_z": 99.0}, "regime": {"regimes": REGIMES}}


@pytest.mark.parametrize("column", NEVER)
def test_what_is_not_known_turns_a_signal_away(column):
    unknown = CONTEXT.assign(**{column: "unknown" if column == "regime" else np.nan})
    passed, turned = (table([0.9, 0.1], context=c, filters=FilterParams(**NEVER[column]), threshold=0.6) for c in (CONTEXT, unknown))
    assert passed["filter"].tolist()[0] == "" and all(turned["filter"]) and set(turned["filter"]) <= set(FILTERS)


def test_an_unknown_spread_turns_a_signal_away_and_an_absent_one_is_none():
    assert table([0.9, 0.9], spread=[np.nan, 0.1], filters=FilterParams(max_spread=0.12))["filter"].tolist() == ["spread", ""]
    assert table([0.9], filters=FilterParams(max_spread=0.0))["filter"].tolist() == [""]


def test_the_first_filter_that_is_failed_gives_its_name():
    wild = CONTEXT.assign(sigma=0.5, long_return=0.001, short_return=-0.001, trend=-1.0, funding_z=9.0)
    chain = {"max_sigma": 0.1, "min_momentum": 0.01, "same_sign": True, "trend_bars": 5, "max_funding_z": 2.5, "margin": 0.35, "max_spread": 0.1,
             "regimes": ("low_vol/up",)}
    names = ("sigma_high", "momentum", "same_sign", "trend", "funding", "margin", "spread", "regime")
    for name, off in zip(names, chain):
        assert table([0.9], context=wild, spread=[0.2], filters=FilterParams(**chain))["filter"].tolist() == [name]
        chain[off] = FilterParams.model_fields[off].default
    assert table([0.9], context=wild, spread=[0.2])["filter"].tolist() == [""]


@given(probs=st.lists(st.lists(st.floats(0, 1), min_size=8, max_size=8), min_size=1, max_size=5), spread=st.floats(0, 0.5))
@settings(max_examples=50, deadline=None)
def test_ranks_follow_the_score_and_ignore_the_order_of_tables(probs, spread):
    tables = [table(p, symbol=f"C{i}", spread=[spread * i] * 8, filters=FilterParams(margin=0.05)) for i, p in enumerate(probs)]
    joint = rank_coins(*tables)
    assert joint.equals(rank_coins(*reversed(tables)))
    scores = pd.concat(tables).set_index(["event_time", "symbol"])
    assert len(joint) == (scores["filter"] == "").sum()
    for when, group in joint.groupby("event_time"):
        assert group["rank"].tolist() == list(range(1, len(group) + 1))
        score = [round(scores.loc[(when, s), "score"], 12) for s in group["symbol"]]
        assert score == sorted(score, reverse=True)


@pytest.mark.parametrize(("changes", "says"), [
    ({"threshold": 0.5}, "threshold"), ({"filters": FilterParams(regimes=("high_vol/upp",))}, "did you mean 'high_vol/up'"),
])
def test_rules_that_contradict_themselves_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        table([0.7], **changes)


def test_a_prediction_without_its_bar_is_refused():
    with pytest.raises(InputError, match="has no bar"):
        table([0.7] * 3, context=CONTEXT.iloc[1:])


# The oracle: one coin as a list of dictionaries, one bar after another.

def market(rng: np.random.Generator, n: int) -> tuple[list[dict], list[tuple[int, int, float]]]:
    "Bars on a coarse tick with two holes and a few filled ones, and funding events (stamp, known, rate) on a few round values."
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.01, n))), 1)
    gone = set(rng.integers(30, n - 1, 2).tolist()) if rng.random() < 0.5 else set()
    bars = [{"time": START + i * HOUR, "close": float(close[i]), "filled": bool(rng.random() < 0.03)} for i in range(n) if i not in gone]
    bars[0]["filled"] = False
    step = int(rng.choice([4, 8]))
    stamps = [START + (i * step + int(rng.integers(0, 2))) * HOUR for i in range(-3, n // step)]
    events = [(t, t + int(rng.choice([0, 60_000])), float(rng.choice([1e-4, 1e-4, 1e-4, 2e-4, -3e-4, 5e-3]))) for t in sorted(set(stamps)) if rng.random() > 0.03]
    return bars, events


def frames(bars: list[dict], events: list[tuple[int, int, float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    index = from_ms(np.array([b["time"] for b in bars]))
    close = np.array([b["close"] for b in bars])
    prices = {"open": close, "high": close, "low": close, "close": close, "volume": 1.0}
    funding = pd.DataFrame({"funding_rate": [r for _, _, r in events], "available_time": from_ms(np.array([a for _, a, _ in events], "int64"))},
                           from_ms(np.array([t for t, _, _ in events], "int64")))
    return pd.DataFrame(prices | {"available_time": index + pd.Timedelta("1h"), "is_filled": [b["filled"] for b in bars]}, index), funding


def plain_context(bars: list[dict], events, f: FilterParams, labels: LabelParams, t: int) -> dict:
    "What is known at the close of bar number `t`."
    first = t
    while first > 0 and bars[first]["time"] - bars[first - 1]["time"] == HOUR:
        first -= 1
    c = [b["close"] for b in bars[first : t + 1]]
    returns = [b / a - 1.0 for a, b in zip(c, c[1:])]

    def ret(n):
        return c[-1] / c[-1 - n] - 1.0 if len(c) > n else math.nan

    def over_mean(n):
        return c[-1] / (sum(c[-n:]) / n) - 1 if len(c) >= n else math.nan

    known = [(a, r) for _, a, r in events if a <= bars[t]["time"] + HOUR]
    z = math.nan
    if len(known) >= f.funding_events and bars[t]["time"] + HOUR - known[-1][0] <= 9 * HOUR:
        rates = [r for _, r in known[-f.funding_events :]]
        z = 0.0 if min(rates) == max(rates) else (rates[-1] - statistics.fmean(rates)) / statistics.stdev(rates)
    a, b = (c[-1] - c[-1 - n] if len(c) > n else math.nan for n in labels.vote_bars)
    d = c[-1] - sum(c[-labels.sma_bars :]) / labels.sma_bars if len(c) >= labels.sma_bars else math.nan
    vote = math.nan if any(map(math.isnan, (a, b, d))) else 1 if min(a, b, d) > 0 else -1 if max(a, b, d) < 0 else 0
    sigma = statistics.stdev(returns[-labels.vol_bars :]) if len(returns) >= labels.vol_bars else math.nan
    return {"sigma": sigma, "short": ret(f.momentum_bars[0]), "long": ret(f.momentum_bars[1]), "trend": over_mean(f.trend_bars) if f.trend_bars else math.nan,
            "vote": vote, "z": z}


def plain_signal(bars, events, answer: dict, regime: str, r: RulesParams, labels: LabelParams) -> dict | None:
    "Side and filter of one answer, or None where it is no signal."
    f, t, prob = r.filters, answer["bar"], answer["prob"]
    if bars[t]["filled"] or math.isnan(prob):
        return None
    x = plain_context(bars, events, f, labels, t)
    if r.side == "vote":
        side = x["vote"] if prob >= r.threshold and x["vote"] in (1, -1) else 0
        sure = prob
    else:
        side = 1 if prob >= r.threshold else -1 if prob <= 1 - r.threshold else 0
        sure = prob if side > 0 else 1 - prob
    if side == 0 or (side == 1 and not r.long) or (side == -1 and not r.short):
        return None
    cutoff, spread = r.threshold + f.margin, answer["spread"]
    tests = [
        ("sigma_low", f.min_sigma is None or x["sigma"] >= f.min_sigma), ("sigma_high", f.max_sigma is None or x["sigma"] <= f.max_sigma),
        ("momentum", f.min_momentum is None or abs(x["long"]) >= f.min_momentum), ("same_sign", not f.same_sign or x["short"] * x["long"] > 0),
        ("trend", f.trend_bars is None or side * x["trend"] > 0), ("funding", f.max_funding_z is None or side * x["z"] <= f.max_funding_z),
        ("margin", not f.margin or sure >= cutoff), ("spread", f.max_spread is None or spread <= f.max_spread),
        ("regime", f.regimes is None or regime in f.regimes)]
    turned = next((name for name, passed in tests if not passed), "")
    score = (sure - cutoff) / (spread + 0.01) + 0.2 * (0.0 if math.isnan(x["long"]) else abs(x["long"]))
    return {"bar": t, "side": side, "filter": turned, "score": score}


@st.composite
def cases(draw):
    "A market, answers, rules."
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bars, events = market(rng, int(rng.integers(60, 160)))
    some = st.sampled_from
    f = FilterParams(
        min_sigma=draw(some([None, 0.008, 0.01])), max_sigma=draw(some([None, 0.01, 0.012])), momentum_bars=draw(some([(4, 12), (1, 30)])),
        min_momentum=draw(some([None, 0.0, 0.02])), same_sign=draw(st.booleans()), trend_bars=draw(some([None, 2, 40])),
        max_funding_z=draw(some([None, 0.5, 2.5])), funding_events=10, margin=draw(some([0.0, 0.02, 0.1])), max_spread=draw(some([None, 0.05])),
        regimes=draw(some([None, ("low_vol/up", "high_vol/down"), REGIMES])))
    r = rules(threshold=draw(some([0.51, 0.6, 0.7])), side=draw(some(["model", "vote"])), long=draw(st.booleans()), short=draw(st.booleans()), filters=f)
    labels = label_params(vol_bars=draw(some([5, 24])), vote_bars=(3, 9), sma_bars=draw(some([2, 20])))
    answers = [{"bar": t, "prob": float(rng.choice([0.2, 0.3, 0.38, 0.4, 0.5, 0.6, 0.62, 0.7, 0.8, math.nan, float(rng.uniform())])),
                "spread": float(rng.choice([0.0, 0.05, 0.2]))} for t in range(len(bars)) if rng.random() < 0.7]
    return bars, events, answers, r, labels


def signals_of(bars, events, answers, r, labels, symbol="X"):
    frame, funding = frames(bars, events)
    predictions = pd.DataFrame({"prob": [a["prob"] for a in answers], "spread": [a["spread"] for a in answers]}, frame.index[[a["bar"] for a in answers]])
    return decide(predictions, rule_context(frame, funding, r.filters, labels), symbol, r)


@pytest.fixture(autouse=True)
def quick_regimes(monkeypatch):
    "Regimes that are known within the small markets of these tests."
    monkeypatch.setattr(conditions, "VOL_WINDOW", 40)
    monkeypatch.setattr(conditions, "VOL_MIN", 10)
    monkeypatch.setattr(conditions, "TREND_BARS", 20)


calm = settings(relaxed, suppress_health_check=[*relaxed.suppress_health_check, HealthCheck.function_scoped_fixture])


@calm
@given(case=cases())
def test_the_whole_chain_equals_plain_python(case):
    bars, events, answers, r, labels = case
    found = signals_of(*case)
    assert tuple(found.columns) == SIGNAL_COLUMNS
    regime = regimes(frames(bars, events)[0])
    expected = [s for a in answers if (s := plain_signal(bars, events, a, regime.loc[from_ms(np.array([bars[a["bar"]]["time"]]))[0]], r, labels))]
    assert found["event_time"].tolist() == [from_ms(np.array([bars[s["bar"]]["time"]]))[0] for s in expected]
    assert found["side"].tolist() == [s["side"] for s in expected] and found["filter"].tolist() == [s["filter"] for s in expected]
    assert found["score"].to_numpy() == pytest.approx([s["score"] for s in expected], rel=1e-12)


@calm
@given(case=cases(), cut=st.floats(0.3, 0.95))
def test_later_data_never_changes_an_earlier_signal(case, cut):
    bars, events, answers, r, labels = case
    n = max(3, int(len(bars) * cut))
    if all(b["filled"] for b in bars[:n]):
        return
    whole = signals_of(*case)
    early = signals_of(bars[:n], [e for e in events if e[1] <= bars[n - 1]["time"] + HOUR], [a for a in answers if a["bar"] < n], r, labels)
    assert early.equals(whole.iloc[: len(early)])
    wrecked = [b | {"close": b["close"] * 7} if i >= n else b for i, b in enumerate(bars)]
    again = signals_of(wrecked, [e if e[1] <= bars[n - 1]["time"] + HOUR else (e[0], e[1], 9.0) for e in events], answers, r, labels)
    assert again.iloc[: len(early)].equals(early)


@calm
@given(case=cases())
def test_the_vote_and_sigma_are_those_of_the_labels(case):
    bars, events, _, _, labels = case
    frame, _ = frames(bars, events)
    named = direction_vote(frame, 3, 1.8, labels.vol_bars, labels.vote_bars, labels.sma_bars)["side"]
    assert np.array_equal(direction(frame, labels.vote_bars, labels.sma_bars), named, equal_nan=True)
    sigma = rule_context(frame, None, FilterParams(), labels)["sigma"]
    assert np.array_equal(sigma, bar_sigma(frame, labels.vol_bars), equal_nan=True)


def test_a_short_history_gives_the_same_table_bit_for_bit():
    rng = np.random.default_rng(5)
    bars, events = market(rng, 400)
    frame, funding = frames([b | {"time": START + i * HOUR} for i, b in enumerate(bars)], events)
    f = FilterParams(trend_bars=90, max_funding_z=2.5, funding_events=10, regimes=REGIMES)
    labels = label_params()
    whole, back = rule_context(frame, funding, f, labels), context_bars(f, labels, "1h")
    for first in (1, 77, 200):
        short = rule_context(frame.iloc[first:], funding[funding.index >= frame.index[first]], f, labels)
        assert short.iloc[back:].equals(whole.iloc[first + back :])


def test_a_market_without_funding_has_none_that_is_crowded():
    frame, funding = frames(*market(np.random.default_rng(1), 100))
    f = FilterParams(max_funding_z=0.1, funding_events=10)
    assert (rule_context(frame, None, f, label_params())["funding_z"] == 0).all()
    assert rule_context(frame, funding.iloc[:0], f, label_params())["funding_z"].isna().all()

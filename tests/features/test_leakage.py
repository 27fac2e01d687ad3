"""Planted leaks, one at a time: each is caught, in the right column, at a bar where it is; honest columns are not accused."""

import json

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.clock import from_ms
from cryptoalgo.core.errors import GateError, InputError
from cryptoalgo.features.labels import forward_return, triple_barrier
from cryptoalgo.features.leakage import Plan, certify
from cryptoalgo.features.probe import changed
from cryptoalgo.features.splits import CombinatorialPurged, Fold, PurgedKFold, Span, WalkForward

HOUR = pd.Timedelta("1h")
LOOKBACK = 48
N = 24 * 50
QUICK = Plan(stretch_days=3, sample_cuts=4, future_cuts=3, starts=4, anchors=12)
PRICES = ["open", "high", "low", "close"]


def make_bars(n=N, seed=11):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    open_ = np.r_[100.0, close[:-1]] * (1 + rng.normal(0, 0.0004, n))
    times = from_ms(1_704_067_200_000 + 3_600_000 * np.arange(n))
    return pd.DataFrame({
        "open": open_, "high": np.maximum(open_, close) * (1 + rng.uniform(0, 0.004, n)),
        "low": np.minimum(open_, close) * (1 - rng.uniform(0, 0.004, n)), "close": close, "volume": rng.uniform(1, 9, n),
        "available_time": times + HOUR, "is_filled": False}, index=times)


BARS = make_bars()
STRETCH = BARS.index[-24 * 3 :]
DAYS = pd.date_range(BARS.index[0].normalize(), BARS.index[-1], freq="D")
MACRO = pd.DataFrame({"value": np.random.default_rng(5).normal(size=len(DAYS)), "available_time": DAYS + pd.Timedelta("22h")},
                     index=DAYS)
CONTEXT = {"macro": MACRO, "others": {"ETH": make_bars(seed=12)}}


def lags(x, k):
    "x[t], x[t−1], …, x[t−k+1] as arrays: sums over them are the same number whatever lies outside."
    x = x.to_numpy("float64")
    return [np.concatenate([np.full(min(i, x.size), np.nan), x[: max(x.size - i, 0)]]) for i in range(k)]


def honest(bars, context):
    "Clean columns that look suspicious: each is a function of the last 48 bars and of what was known."
    close, eth = bars["close"], context["others"]["ETH"]["close"].reindex(bars.index)
    last, returns = lags(close, 24), close / close.shift(1) - 1
    mean = sum(last) / 24
    macro = context["macro"]
    row = np.searchsorted(macro["available_time"], bars["available_time"], side="right")
    monday = bars.index.dayofweek.to_numpy() == 0
    return pd.DataFrame({
        "return": returns,
        "lagged_return": returns.shift(1),
        "rank_in_window": sum(np.where(np.isnan(x), np.nan, last[0] > x) for x in last) / 24,
        "z_in_window": (close - mean) / np.sqrt(sum((x - mean) ** 2 for x in last) / 23),
        "filled_forward": close.where(bars["volume"] > 1.2).ffill(limit=20),
        "monday": monday.astype(float),
        "monday_return": np.where(monday, returns, 0.0),
        "macro_when_known": np.append(np.nan, macro["value"])[row],
        "eth_lead": eth / eth.shift(1) - 1,
        "reversed_twice": returns[::-1].iloc[::-1],
    }, index=bars.index)


def certificate(leak=None, plan=QUICK, **kw):
    "A trial of the honest columns and, if given, of one called `leak` beside them."
    fn = honest if leak is None else lambda bars, context: honest(bars, context).assign(leak=leak(bars, context))
    return certify(fn, BARS, CONTEXT, LOOKBACK, plan=plan, **kw)


def at_last(x, value):
    out = x.copy()
    out.iloc[-1] = value
    return out


def at_bar(x, t, value):
    out = x.copy()
    out.loc[out.index == t] = value
    return out


ODD = STRETCH[30]


def spied(bars, context):
    "Reads one bar ahead at a single bar of the stretch."
    return at_bar(bars["close"], ODD, bars["close"].shift(-1).get(ODD, np.nan))


PLANTED = {
    "shift": lambda b, c: b["close"].shift(-1) / b["close"] - 1,
    "centred_mean": lambda b, c: b["close"].rolling(5, center=True).mean(),
    "global_z": lambda b, c: (b["close"] - b["close"].mean()) / b["close"].std(),
    "global_extreme": lambda b, c: b["close"] / b["close"].max(),
    "back_fill": lambda b, c: b["close"].where(b["volume"] > 3).bfill(),
    "full_rank": lambda b, c: b["close"].rank(pct=True),
    "full_quantile": lambda b, c: (b["close"] > b["close"].quantile(0.5)).astype(float),
    "interpolated": lambda b, c: b["close"].where(b["volume"] > 3).interpolate(),
    "one_bar": spied,
    "last_row": lambda b, c: at_last(b["close"], b["close"].mean()),
    "next_open": lambda b, c: b["open"].shift(-1),
    "mondays": lambda b, c: b["close"].where(b.index.dayofweek != 0, b["close"].shift(-2)),
    "whole_day": lambda b, c: b["close"].groupby(b.index.floor("D")).transform("last"),
    "resample_left": lambda b, c: b["close"].resample("4h").last().reindex(b.index, method="ffill"),
    "reversed_ewm": lambda b, c: b["close"][::-1].ewm(span=5).mean()[::-1],
    "macro_by_date": lambda b, c: c["macro"]["value"].reindex(b.index, method="ffill"),
    "other_coin": lambda b, c: c["others"]["ETH"]["close"].shift(-1).reindex(b.index),
    "context_mean": lambda b, c: b["close"] * 0 + c["others"]["ETH"]["close"].mean(),
    "label": lambda b, c: triple_barrier(b, 6, 1, 1)["y"],
}


def test_honest_columns_are_not_accused():
    found = certificate(plan=Plan(stretch_days=14, sample_cuts=8, future_cuts=6, starts=6), stream_fn=honest)
    assert found.passed and not found.breaches
    assert found.coverage["stretch"] == {
        "from": BARS.index[-336].isoformat(), "to": BARS.index[-1].isoformat(), "cuts": 336, "future_bars": 24}
    assert len(found.coverage["columns"]) == 10 and found.coverage["rows"] == N


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_caught_and_the_honest_columns_beside_it_are_not(name):
    found = certificate(PLANTED[name])
    assert {b.column for b in found.breaches} == {"leak"}
    assert "prefix" in {b.test for b in found.breaches}
    with pytest.raises(GateError, match="'leak' at bar 2024"):
        found.raise_on_breach()


def test_a_leak_at_one_bar_is_located_at_that_bar():
    (breach,) = (b for b in certificate(spied).breaches if b.test == "prefix")
    assert (breach.event_time, breach.bars) == (ODD.isoformat(), 1) and breach.cut == (ODD + HOUR).isoformat()


def test_a_leak_that_wakes_only_on_one_kind_of_future_is_caught_by_that_kind():
    "The column looks ahead only where the next bar is missing, so taking bars away and other values do not wake it."
    def leak(bars, context):
        return bars["close"].where(bars["close"].shift(-1, fill_value=0.0).notna(), -1.0)
    assert {(b.test, b.column) for b in certificate(leak).breaches} == {("future_nan", "leak")}


@pytest.mark.parametrize("span", [20, 200])
def test_a_recursion_from_the_start_of_the_series_breaks_its_declared_look_back(span):
    found = certificate(lambda b, c: b["close"].ewm(span=span, adjust=False).mean())
    assert {(b.test, b.column) for b in found.breaches} == {("start", "leak")}  # and it is not called a look ahead


def test_a_look_back_longer_than_declared_is_found_by_one_bar():
    leak = lambda b, c: sum(lags(b["close"], LOOKBACK + 1)) / LOOKBACK  # noqa: E731
    declared = dict.fromkeys(honest(BARS, CONTEXT).columns, LOOKBACK) | {"leak": LOOKBACK}
    fn = lambda b, c: honest(b, c).assign(leak=leak(b, c))  # noqa: E731
    assert certify(fn, BARS, CONTEXT, declared, plan=QUICK).passed
    short = certify(fn, BARS, CONTEXT, declared | {"leak": LOOKBACK - 1}, plan=QUICK)
    assert {(b.test, b.column) for b in short.breaches} == {("start", "leak")}


def test_a_memory_of_the_context_longer_than_declared_is_found():
    endless = lambda b, c: c["others"]["ETH"]["close"].expanding().mean().reindex(b.index)  # noqa: E731
    assert {(b.test, b.column) for b in certificate(endless).breaches} == {("start", "leak")}


def test_a_context_that_reaches_back_before_the_bars_is_no_leak():
    days = pd.date_range(BARS.index[0].normalize() - pd.Timedelta("60D"), BARS.index[-1], freq="D")
    macro = pd.DataFrame({"value": np.random.default_rng(6).normal(size=len(days)), "available_time": days + pd.Timedelta("22h")})

    def fn(bars, context):
        m = context["macro"]
        change = np.append(np.nan, m["value"] - m["value"].shift(15))
        row = np.searchsorted(m["available_time"], bars["available_time"], side="right")
        return pd.DataFrame({"change_15d": change[row]}, index=bars.index)

    assert not fn(BARS, {"macro": macro}).isna().any(axis=None)
    assert certify(fn, BARS, {"macro": macro}, 24 * 16, plan=QUICK).passed
    assert {b.test for b in certify(fn, BARS, {"macro": macro}, 24, plan=QUICK).breaches} == {"start"}


def test_context_that_runs_along_the_bars_is_cut_with_them():
    joined = pd.DataFrame({"funding_rate": np.random.default_rng(3).normal(size=N)}, index=BARS.index)
    fn = lambda b, c: pd.DataFrame({"now": c["funding_rate"], "next": c["funding_rate"].shift(-1)}, index=b.index)  # noqa: E731
    assert {b.column for b in certify(fn, BARS, joined, 1, plan=QUICK).breaches} == {"next"}


def test_streaming_that_differs_from_batch_is_found():
    def stream(bars, context):
        out = honest(bars, context)
        out.loc[out.index == ODD, "return"] = 0.5
        return out
    (breach,) = certificate(stream_fn=stream).breaches
    assert (breach.test, breach.column, breach.event_time, breach.bars) == ("stream", "return", ODD.isoformat(), 1)


def test_a_scaler_fitted_on_all_rows_is_found_and_one_fitted_before_is_not():
    mean, std = BARS["volume"].iloc[:500].mean(), BARS["volume"].iloc[:500].std()
    assert certificate(lambda b, c: (b["volume"] - mean) / std).passed
    assert not certificate(lambda b, c: (b["volume"] - b["volume"].mean()) / b["volume"].std()).passed


def test_bits_are_compared():
    one = np.array([[1.0, np.nan, 0.0]], "float32")
    assert changed(one, np.nextafter(one, np.float32(2))).tolist() == [[True, False, True]]
    assert changed(one, one.copy()).tolist() == [[False, False, False]]
    assert not certificate(lambda b, c: b["close"] * (1 + 1e-15 * len(b))).passed


# Labels


def held(bars):
    return triple_barrier(bars, 12, 3, 3)


def from_close(bars):
    "Measured from close(t), the predecessors' fault; times as they should be."
    return held(bars).assign(ret=lambda x: (1 + x["ret"]) * bars["open"].shift(-1) / bars["close"] - 1)


def vertical_from_close(bars):
    "The same fault, where no inspection of prices shows it: the next open is the close."
    return forward_return(bars, 12).assign(ret=lambda x: (bars["close"].shift(-12) / bars["close"] - 1).where(x["y"].notna()))


LABEL_FAULTS = {
    "from_close": (from_close, "ret", {"label_anchor", "label_prices"}),
    "t_start_at_the_decision": (lambda b: held(b).assign(t_start=lambda x: x.index), "t_start", {"label_times"}),
    "t_end_too_early": (lambda b: held(b).assign(t_end=lambda x: x["t_start"] + HOUR), "ret", {"label_future", "label_prices"}),
    "t_end_before_start": (lambda b: held(b).assign(t_end=lambda x: x["t_start"]), "t_end", {"label_times"}),
    "t_end_off_the_grid": (lambda b: held(b).assign(t_end=lambda x: x["t_end"] - HOUR / 2), "t_end", {"label_times"}),
    "full_sample_threshold": (lambda b: held(b).assign(y=lambda x: (x["ret"] > x["ret"].median()).where(x["ret"].notna()) * 1.0),
                              "y", {"label_future"}),
    "level_of_the_past": (lambda b: held(b).assign(y=lambda x: x["y"] * (b["close"] > 100)), "y", {"label_anchor"}),
}


@pytest.mark.parametrize("label", [held, lambda b: forward_return(b, 24), lambda b: triple_barrier(b, 24, 1, 8, vertical="zero")])
def test_our_labels_are_not_accused(label):
    found = certificate(labels_fn=label)
    assert found.passed and found.coverage["labels"]["labels"] == label(BARS)["y"].notna().sum()


@pytest.mark.parametrize("name", LABEL_FAULTS)
def test_a_faulty_label_is_caught(name):
    label, column, tests = LABEL_FAULTS[name]
    found = certificate(labels_fn=label)
    assert tests <= {b.test for b in found.breaches} and column in {b.column for b in found.breaches}
    assert all(b.test.startswith("label") for b in found.breaches)


def test_the_anchor_is_seen_where_close_and_next_open_are_the_same_price():
    bars = BARS.copy()
    bars["open"] = bars["close"].shift(1).fillna(bars["open"])
    bars["high"], bars["low"] = bars[PRICES].max(axis=1), bars[PRICES].min(axis=1)
    assert vertical_from_close(bars).equals(forward_return(bars, 12))
    fault = certify(honest, bars, CONTEXT, LOOKBACK, vertical_from_close, plan=QUICK)
    assert {(b.test, b.column) for b in fault.breaches} == {("label_anchor", "ret")}
    assert certify(honest, bars, CONTEXT, LOOKBACK, lambda b: forward_return(b, 12), plan=QUICK).passed


# Splits


@pytest.mark.parametrize("splitter", [
    WalkForward("anchored", 20, 3, 24), WalkForward("sliding", 20, 3), PurgedKFold(4, 24), CombinatorialPurged(5, 2)])
def test_our_splits_are_not_accused(splitter):
    labels = held(BARS)
    folds = splitter.split(labels["t_start"], labels["t_end"], labels.index)
    found = certificate(labels_fn=held, folds=folds)
    assert found.passed and found.coverage["splits"]["folds"] == len(folds)


@pytest.mark.parametrize(("train", "test", "gap", "row"), [
    ((Span(40, 600),), (Span(600, 700),), 0, None),  # no purge at all
    ((Span(40, 585),), (Span(600, 700),), 24, None),  # purged, but not by the embargo that is promised
    ((Span(700, 900),), (Span(600, 700),), 0, 700),  # a test label is still open when training begins
    ((Span(40, 400), Span(650, 651)), (Span(600, 700),), 0, 650),  # a test row in training
    ((Span(0, 400),), (Span(600, 700),), 0, 0),  # rows without a label
])
def test_a_bad_split_is_caught(train, test, gap, row):
    fold = Fold(0, train, test, gap * 3_600_000, gap * 3_600_000)
    (breach,) = certificate(labels_fn=held, folds=[fold]).breaches
    assert (breach.test, breach.column, breach.cut) == ("split", "fold 0", BARS.index[600].isoformat())
    if row is None:
        labels = held(BARS)
        late = labels["t_end"].iloc[slice(*train[0])] > BARS.index[600] - gap * HOUR
        assert breach.event_time == late.idxmax().isoformat() and breach.bars == late.sum()
    else:
        assert breach.event_time == BARS.index[row].isoformat()


def test_the_books_purge_shares_a_bar_and_is_refused():
    labels = forward_return(BARS, 12)
    folds = PurgedKFold(4, 0, "book").split(labels["t_start"], labels["t_end"], labels.index)
    found = certificate(labels_fn=lambda b: forward_return(b, 12), folds=folds)
    assert {b.test for b in found.breaches} == {"split"}


# The certificate


def test_the_certificate_is_json_bound_to_its_hashes_and_the_same_every_time():
    make = lambda: certificate(PLANTED["shift"], labels_fn=held, hashes={"data": "b", "code": "a"})  # noqa: E731
    first, again = make().to_dict(), make().to_dict()
    assert json.dumps(first) == json.dumps(again) and json.loads(json.dumps(first)) == first
    assert first["hashes"] == {"code": "a", "data": "b"} and first["passed"] is False
    assert first["breaches"][0]["column"] == "leak"


def test_reference_nonanticipation(reference):
    "Published counts of cells that change when the rest of a series is taken away."
    entry = reference("nonanticipation.features")
    x = pd.Series(entry["inputs"]["series"])
    functions = {
        "sma5": lambda s: s.rolling(5).mean(),
        "ema_adjust_false": lambda s: s.ewm(span=10, adjust=False).mean(),
        "ret1": lambda s: s.pct_change(),
        "centered_sma5": lambda s: s.rolling(5, center=True).mean(),
        "global_zscore": lambda s: (s - s.mean()) / s.std(),
        "next_return": lambda s: s.shift(-1) / s - 1,
        "bfill_gap": lambda s: s.where(s.index % 7 != 3).bfill(),
        "global_rank": lambda s: s.rank(pct=True),
        "expanding_rank": lambda s: s.expanding().rank(pct=True),
    }
    for name, expected in entry["expected"].items():
        whole = functions[name](x).to_numpy()[:, None]
        cells = [int(changed(whole[:c], functions[name](x[:c]).to_numpy()[:, None]).sum()) for c in range(10, 60)]
        assert sum(cells) == expected["prefix_violating_cells"], name
        assert sum(c > 0 for c in cells) == expected["prefix_cuts_failing"], name


@pytest.mark.parametrize(("call", "words"), [
    (lambda: certify(honest, BARS.iloc[:40], CONTEXT, LOOKBACK), "40 bars for a look-back of 48"),
    (lambda: certify(honest, BARS, CONTEXT, {"return": 1}), "column 'lagged_return': no look-back is declared"),
    (lambda: certify(honest, BARS, CONTEXT, LOOKBACK, folds=[Fold(0, (), (Span(1, 2),), 0, 0)], plan=QUICK), "without labels_fn"),
    (lambda: certify(lambda b, c: honest(b, CONTEXT), BARS, [1], LOOKBACK), "context of type list"),
    (lambda: certify(lambda b, c: honest(b, c).dropna(), BARS, CONTEXT, LOOKBACK), "a row per bar"),
    (lambda: certificate(labels_fn=lambda b: held(b).drop(columns="t_end")), "labels without column 't_end'"),
    (lambda: certificate(labels_fn=lambda b: held(b).assign(y=np.nan)), "not one is known"),
    (lambda: certificate(labels_fn=held, folds=[Fold(3, (Span(0, 9),), (Span(N, N + 5),), 0, 0)]), "fold 3: it has rows beyond"),
])
def test_bad_input_names_value_and_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call()

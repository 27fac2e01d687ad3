"""Planted leaks are caught where they were planted, honest columns are not accused, and the certificate says what it tried."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.features.labels import forward_return
from cryptoalgo.features.leakage import STANDARD, certify
from cryptoalgo.features.planted import CLEAN, PLANTED, QUICK, batch, held, scale, trial_table
from cryptoalgo.features.probe import changed
from cryptoalgo.features.splits import CombinatorialPurged, Fold, PurgedKFold, Span, WalkForward
from cryptoalgo.features.suspects import LOOKBACK, Case, planted_market

N, BARS, CONTEXT = 24 * 50, *planted_market()
PRICES = ["open", "high", "low", "close"]


def honest(bars, context):
    "Two columns that keep a suspect company."
    returns = bars["close"] / bars["close"].shift(1) - 1
    return pd.DataFrame({"return": returns, "eth": context["others"]["ETH"]["close"].reindex(bars.index)}, index=bars.index)


def certificate(leak=None, plan=QUICK, **kw):
    "A trial of the honest columns and, if given, of one called `leak` beside them."
    fn = honest if leak is None else lambda bars, context: honest(bars, context).assign(leak=leak(bars, context))
    return certify(fn, BARS, CONTEXT, LOOKBACK, plan=plan, **kw)


@pytest.fixture(scope="module")
def table():
    return trial_table()


def test_there_are_enough_cases_of_every_kind():
    planted, clean = (Counter(case.kind for case in cases.values()) for cases in (PLANTED, CLEAN))
    assert sum(planted.values()) >= 70 and planted["feature"] >= 40 and planted["label"] >= 8 and planted["transform"] >= 10
    assert clean["feature"] >= 30 and set(clean) == set(planted) == {"feature", "stream", "label", "transform", "split"}
    assert not set(PLANTED) & set(CLEAN) and all(case.what for case in (PLANTED | CLEAN).values())


@pytest.mark.parametrize("name", PLANTED)
def test_what_was_planted_is_caught_and_located(name, table):
    row = table.loc[name]
    assert row["caught"] and row["located"], f"{row['what']}: first bar {row['first_bar']}, guilty from {row['guilty_from']}"


@pytest.mark.parametrize("name", CLEAN)
def test_what_only_looks_guilty_is_not_accused(name, table):
    assert not table.loc[name, "caught"], f"{table.loc[name, 'what']}: {table.loc[name, 'tests']} {table.loc[name, 'accused']}"


@pytest.mark.parametrize(("name", "tests"), [
    ("only_when_missing", {"future_nan"}), ("only_when_other", {"future_walk"}), ("only_when_shuffled", {"future_permutation"}),  # each kind of future is needed
    ("a_bar_longer_than_declared", {"start"}), ("ema_from_the_start", {"start"}), ("memory_of_another_coin", {"start"}),  # not called a look ahead
    ("label_from_the_close", {"label_anchor", "label_prices"}), ("label_starts_at_its_decision", {"label_times"}),
    ("label_ends_too_early", {"label_future", "label_prices"}), ("label_beyond_its_end_once", {"label_future"}),
    ("own_label_at_one_row", {"transform_test"}), ("scaler_fitted_on_all_rows", {"transform_train", "transform_test"})])
def test_the_breach_is_called_by_its_name(name, tests, table):
    assert set(table.loc[name, "tests"].split(", ")) == tests


@pytest.mark.parametrize(("ours", "faulty"), [
    ("long_bar_when_closed", "long_bar_as_of_its_open"), ("long_bar_when_closed", "resampled_left"),
    ("macro_for_two_days", "macro_by_date"), ("macro_when_known", "macro_forward"), ("funding_when_known", "funding_by_stamp"),
    ("funding_settled", "funding_by_stamp"), ("open_interest_when_known", "open_interest_by_stamp"), ("other_coin_now", "other_coin")])
def test_our_resampling_and_joins_are_acquitted_where_the_usual_fault_is_caught(ours, faulty, table):
    assert not table.loc[ours, "caught"] and table.loc[faulty, "located"] and (BARS["close"] * 0 + CLEAN[ours].make(BARS, CONTEXT)).notna().mean() > 0.9


def test_a_suspect_alone_is_judged_as_in_company(table):
    alone = trial_table({name: PLANTED[name] for name in ("mondays",)})
    assert alone.loc["mondays"].equals(table.loc["mondays"])


def test_the_tables_plan_can_be_the_standard_one():
    cases = {name: (PLANTED | CLEAN)[name] for name in ("next_return", "one_bar", "mondays", "funding_by_stamp", "resampled_left",
             "rank_in_window", "macro_when_known", "long_bar_when_closed")}
    cases["once_two_weeks_ago"] = Case("feature", "", lambda b, c: b["close"].where(b.index != AGO, b["close"].shift(-1)), lambda b: (b.index == AGO) * 1)
    found = trial_table(cases, STANDARD)
    assert found["located"].tolist() == found["caught"].tolist() == [*found["planted"][:-1], True]
    assert found.loc["once_two_weeks_ago", "first_bar"] == AGO.isoformat()


AGO = BARS.index[-24 * 14]  # the first bar of a stretch of fourteen days


def test_the_certificate_says_what_it_covered():
    found = certificate(plan=replace(QUICK, stretch_days=14), stream_fn=honest, labels_fn=held)
    assert found.passed and not found.breaches
    stretch = found.coverage["stretch"]
    assert stretch == {"from": BARS.index[-336].isoformat(), "to": BARS.index[-1].isoformat(), "cuts": 336, "future_bars": 24}
    assert found.coverage["columns"] == ["return", "eth"] and found.coverage["rows"] == N
    assert found.coverage["stream"] == {"from": BARS.index[0].isoformat(), "bars": N, "begun_again": BARS.index[-336 - LOOKBACK].isoformat()}
    assert found.coverage["labels"]["stretch"] == {"from": BARS.index[-336].isoformat(), "cuts": 335, "bars_before": 37, "bars_replaced": 12}


def test_a_look_back_is_declared_per_column():
    make = PLANTED["a_bar_longer_than_declared"].make
    fn = lambda b, c: honest(b, c).assign(leak=make(b, c))  # noqa: E731
    declared = {"return": 1, "eth": 0, "leak": LOOKBACK + 1}
    assert certify(fn, BARS, CONTEXT, declared, plan=QUICK).passed
    short = certify(fn, BARS, CONTEXT, declared | {"leak": LOOKBACK}, plan=QUICK)
    assert {(b.test, b.column) for b in short.breaches} == {("start", "leak")}


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


def test_a_stream_that_needs_the_first_bar_of_all_is_found_where_it_is_begun_again():
    "Equal to the batch when it begins with the series; another number when it begins with the look-back, as it does live."
    fn = lambda b, c: pd.DataFrame({"return": np.full(len(b), float(b.index[0] == BARS.index[0])) * 0 + b["close"]})  # noqa: E731
    late = lambda b, c: fn(b, c) + float(b.index[0] != BARS.index[0])  # noqa: E731
    (breach,) = certify(fn, BARS, None, LOOKBACK, plan=QUICK, stream_fn=late).breaches
    assert (breach.test, breach.event_time, breach.bars) == ("stream", BARS.index[-24].isoformat(), 24)


def test_bits_are_compared():
    one = np.array([[1.0, np.nan, 0.0]], "float32")
    assert changed(one, np.nextafter(one, np.float32(2))).tolist() == [[True, False, True]]
    assert changed(one, one.copy()).tolist() == [[False, False, False]]
    assert not certificate(lambda b, c: b["close"] * (1 + 1e-15 * len(b))).passed


# Labels


def vertical_from_close(bars):
    "Measured from close(t), where no inspection of prices shows it: the next open is the close."
    return forward_return(bars, 12).assign(ret=lambda x: (bars["close"].shift(-12) / bars["close"] - 1).where(x["y"].notna()))


def test_the_anchor_is_seen_where_close_and_next_open_are_the_same_price():
    bars = BARS.copy()
    bars["open"] = bars["close"].shift(1).fillna(bars["open"])
    bars["high"], bars["low"] = bars[PRICES].max(axis=1), bars[PRICES].min(axis=1)
    assert vertical_from_close(bars).equals(forward_return(bars, 12))
    fault = certify(batch, bars, None, LOOKBACK, vertical_from_close, plan=QUICK)
    assert {(b.test, b.column) for b in fault.breaches} == {("label_anchor", "ret")}
    assert certify(batch, bars, None, LOOKBACK, lambda b: forward_return(b, 12), plan=QUICK).passed


# Splits


@pytest.mark.parametrize("splitter", [
    WalkForward("anchored", 20, 3, 24), WalkForward("sliding", 20, 3), PurgedKFold(4, 24), CombinatorialPurged(5, 2)])
def test_every_fold_of_our_splits_is_acquitted(splitter):
    labels = held(BARS)
    folds = splitter.split(labels["t_start"], labels["t_end"], labels.index)
    found = certificate(labels_fn=held, folds=folds)
    assert found.passed and found.coverage["splits"]["folds"] == len(folds)


def test_the_books_purge_shares_a_bar_and_is_refused():
    labels = forward_return(BARS, 12)
    folds = PurgedKFold(4, 0, "book").split(labels["t_start"], labels["t_end"], labels.index)
    found = certificate(labels_fn=lambda b: forward_return(b, 12), folds=folds)
    assert {b.test for b in found.breaches} == {"split"}


# The certificate


def test_the_certificate_is_json_bound_to_its_hashes_and_the_same_every_time():
    make = lambda: certificate(PLANTED["next_return"].make, labels_fn=held, hashes={"data": "b", "code": "a"})  # noqa: E731
    first, again = make().to_dict(), make().to_dict()
    assert json.dumps(first) == json.dumps(again) and json.loads(json.dumps(first)) == first
    assert first["hashes"] == {"code": "a", "data": "b"} and first["passed"] is False
    assert first["breaches"][0]["column"] == "leak"


def test_a_transform_is_located_by_name_column_and_fold():
    found = certificate(labels_fn=held, folds=FOLDS, transforms={"mine": scale_on_all, "ours": CLEAN["scaler_fitted_on_training"].make})
    columns = {b.column for b in found.breaches}
    assert columns == {f"mine: {c} of fold {k}" for c in ("return", "eth") for k in (0, 1)} and "'mine: eth of fold 0' at bar 2024-01-0" in str(found.breaches[0])
    tried = found.coverage["transforms"]
    assert tried["names"] == ["mine", "ours"] and tried["folds"] == 2 and tried["cuts"] >= 24 + 4


def scale_on_all(x, z, fold):
    return scale(x, z, np.arange(len(x)))


FOLDS = WalkForward("anchored", 20, 2, 24).split(held(BARS)["t_start"], held(BARS)["t_end"], BARS.index)


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
    (lambda: certify(honest, BARS, CONTEXT, {"return": 1}), "column 'eth': no look-back is declared"),
    (lambda: certify(honest, BARS, CONTEXT, LOOKBACK, folds=[Fold(0, (), (Span(1, 2),), 0, 0)], plan=QUICK), "without labels_fn"),
    (lambda: certify(lambda b, c: honest(b, CONTEXT), BARS, [1], LOOKBACK), "context of type list"),
    (lambda: certificate(labels_fn=held, transforms={"scaler": scale}), r"transforms \(scaler\) without folds and labels_fn"),
    (lambda: certificate(labels_fn=held, folds=FOLDS, transforms={"twice": lambda x, z, f: pd.concat([x, x.iloc[:1]])}), "fold 0: a transform answers .* twice"),
    (lambda: certify(lambda b, c: honest(b, c).dropna(), BARS, CONTEXT, LOOKBACK), "a row per bar"),
    (lambda: certificate(labels_fn=lambda b: held(b).drop(columns="t_end")), "labels without column 't_end'"),
    (lambda: certificate(labels_fn=lambda b: held(b).assign(y=np.nan)), "not one is known"),
    (lambda: certificate(labels_fn=held, folds=[Fold(3, (Span(0, 9),), (Span(N, N + 5),), 0, 0)]), "fold 3: it has rows beyond"),
])
def test_bad_input_names_value_and_remedy(call, words):
    with pytest.raises(InputError, match=words):
        call()

"""The labels of turning points and of votes: ours are acquitted, their usual faults are caught by name."""

import pytest

from cryptoalgo.features.labels import bar_sigma, direction_vote, forward_return, triple_barrier, turning_point_return
from cryptoalgo.features.leakage import certify_labels
from cryptoalgo.features.planted import QUICK
from cryptoalgo.features.suspects import planted_market
from cryptoalgo.features.turning_points import turning_points

BARS, _ = planted_market()


def turned(bars):
    return turning_point_return(bars)


def turned_from_close(bars):
    "The predecessors' target: from the close of the turning point itself."
    ret, sigma = bars["close"].shift(-4) / bars["close"] - 1, bar_sigma(bars, 20)
    return turned(bars).assign(ret=lambda x: ret.where(x["y"].notna()), y=lambda x: (ret / sigma).where(x["y"] != 0, x["y"]))


def turned_a_bar_later(bars):
    "Oscillators that have seen the next bar: its crossings are taken for those of this one."
    late, free = turning_points(bars)["turning_point"].shift(-1, fill_value=False), forward_return(bars, 4, 20)
    return free.assign(y=free["y"].where(late | free["y"].isna(), 0.0))


def turned_in_whole_sample_units(bars):
    return turned(bars).assign(y=lambda x: (x["ret"] / x["ret"].std()).where(x["y"] != 0, x["y"]))


def voted(bars):
    return direction_vote(bars, 12)


def beyond_the_horizon(bars):
    "Reached at any time, and the times of those that did so in time."
    endless = direction_vote(bars, 72)["y"].reindex(bars.index)
    return voted(bars).assign(y=lambda x: endless.where(x["y"].notna() & endless.notna(), x["y"]))


def vote_of_the_next_bar(bars):
    "Whether the market went the way for which the next bar voted."
    ahead = direction_vote(bars, 12)["side"].shift(-1)
    return voted(bars).assign(y=lambda x: (ahead * x["ret"] > 0).where(x["y"].notna()) * 1.0)


def excursion_from_close(bars):
    "The target hangs on close(t), and so does the return."
    away = bars["open"].shift(-1) / bars["close"]
    return voted(bars).assign(ret=lambda x: (1 + x["ret"]) * away - 1)


FAULTS = {
    "turned_from_close": (turned_from_close, "ret", {"label_anchor", "label_prices"}),
    "turned_a_bar_later": (turned_a_bar_later, "y", {"label_anchor"}),
    "turned_in_whole_sample_units": (turned_in_whole_sample_units, "y", {"label_future"}),
    "excursion_beyond_the_horizon": (beyond_the_horizon, "y", {"label_future"}),
    "excursion_from_close": (excursion_from_close, "ret", {"label_anchor", "label_prices"}),
    "vote_of_the_next_bar": (vote_of_the_next_bar, "y", {"label_anchor"}),
}


@pytest.mark.parametrize("label", [lambda b: forward_return(b, 24), lambda b: triple_barrier(b, 24, 1, 8, vertical="zero"),
                                   turned, voted, lambda b: direction_vote(b, 24, 4.0)])
def test_our_labels_are_not_accused(label):
    found = certify_labels(label, BARS, plan=QUICK)
    assert found.passed and found.coverage["labels"]["labels"] == label(BARS)["y"].notna().sum()


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_label_is_caught(name):
    label, column, tests = FAULTS[name]
    found = certify_labels(label, BARS, plan=QUICK)
    assert tests <= {b.test for b in found.breaches} and column in {b.column for b in found.breaches}
    assert all(b.test.startswith("label") for b in found.breaches)

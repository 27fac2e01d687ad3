"""Nothing recorded is lost, nothing is changed unseen, nothing is counted twice."""

import hashlib
import json
import logging
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalgo.core.clock import DAY_MS, from_ms
from cryptoalgo.core.errors import GateError, InputError, OutsideError
from cryptoalgo.core.ledger import GENESIS, Ledger, Trial
from cryptoalgo.core.statistics import sharpe

HERE = Path(__file__).parent
START, CUT, END = 19_000 * DAY_MS, 19_040 * DAY_MS, 19_060 * DAY_MS


def daily(seed: int, start_ms: int = START, end_ms: int = CUT) -> pd.Series:
    days = np.arange(start_ms, end_ms, DAY_MS)
    return pd.Series(np.random.default_rng(seed).normal(0.001, 0.01, days.size), from_ms(days))


def trial(seed: int = 0, **changes) -> Trial:
    fields = {
        "code_hash": "c", "data_hash": "d", "params_hash": f"p{seed}", "market": "recorded", "coin": "BTC", "timeframe": "1h",
        "issue": "002", "state": "finished", "start_ms": START, "end_ms": CUT, "daily": daily(seed),
    }  # fmt: skip
    return Trial(**fields | changes)


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    ledger.fix_holdout("recorded", CUT, END)
    return ledger


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> bytes:
    "A ledger of a few short lines, as bytes."
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "l")
    ledger.fix_holdout("recorded", CUT, END)
    for k in range(3):
        ledger.record(trial(k, start_ms=CUT - 2 * DAY_MS, daily=daily(k, CUT - 2 * DAY_MS)))
    ledger.read_holdout(trial(1).id, CUT, END)
    return ledger.path.read_bytes()


# ---- the chain ------------------------------------------------------------------------------------------------------
def test_a_stranger_can_check_the_chain_with_two_lines(written):
    prev = GENESIS
    for n, line in enumerate(written.decode().splitlines()):
        record = json.loads(line)
        claimed = record.pop("hash")
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == claimed
        assert (record["seq"], record["prev"]) == (n, prev)
        prev = claimed


@pytest.mark.parametrize("other", [0x00, 0x0A, 0x20, 0x30, 0x7D, 0xFF])
def test_every_single_changed_byte_is_found_and_its_line_named(written, tmp_path, other):
    path = tmp_path / "l"
    for at in range(len(written)):
        if written[at] == other:
            continue
        path.write_bytes(written[:at] + bytes([other]) + written[at + 1 :])
        with pytest.raises(GateError, match=f"line {written[:at].count(10) + 1}: .*restore"):
            Ledger(path).verify()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_dropped_swapped_or_repeated_line_is_found(written, tmp_path_factory, data):
    lines = written.splitlines(keepends=True)
    k = data.draw(st.integers(0, len(lines) - 2))
    other = data.draw(st.sampled_from(["drop", "swap", "repeat"]))
    if other == "drop":
        lines.pop(k)
    elif other == "swap":
        lines[k], lines[k + 1] = lines[k + 1], lines[k]
    else:
        lines.insert(k, lines[k])
    path = tmp_path_factory.mktemp("l") / "l"
    path.write_bytes(b"".join(lines))
    with pytest.raises(GateError, match="line"):
        Ledger(path).view()


def test_a_broken_chain_takes_no_further_entry(written, tmp_path):
    path = tmp_path / "l"
    broken = written.replace(b'"BTC"', b'"ETH"', 1)
    path.write_bytes(broken)
    with pytest.raises(GateError, match="line 2: its hash does not match"):
        Ledger(path).record(trial(9))
    assert path.read_bytes() == broken


def test_same_work_in_the_same_order_leaves_the_same_bytes(written, tmp_path):
    ledger = Ledger(tmp_path / "again")
    ledger.fix_holdout("recorded", CUT, END)
    for k in range(3):
        ledger.record(trial(k, start_ms=CUT - 2 * DAY_MS, daily=daily(k, CUT - 2 * DAY_MS)))
    ledger.read_holdout(trial(1).id, CUT, END)
    assert ledger.path.read_bytes() == written


# ---- crashes --------------------------------------------------------------------------------------------------------
def test_killed_at_every_byte_of_the_last_line(written, tmp_path, caplog):
    path, last = tmp_path / "l", written.rstrip(b"\n").rfind(b"\n") + 1
    for size in range(last, len(written) + 1):
        path.write_bytes(written[:size])
        caplog.clear()
        torn = Ledger(path)
        whole = size >= len(written) - 1  # only the newline is missing: the entry is there
        assert len(torn.view().entries) == (5 if whole else 4)
        assert bool(caplog.records) == (last < size < len(written) - 1)
        assert path.read_bytes() == written[:size]  # a reader mends nothing
        torn.read_holdout(trial(1).id, CUT, END)
        assert path.read_bytes() == written
        Ledger(path).verify()


def test_the_notice_names_file_line_and_bytes(written, tmp_path, caplog):
    path = tmp_path / "l"
    path.write_bytes(written[:-30])
    with caplog.at_level(logging.WARNING):
        Ledger(path).view()
    assert f"{path} line 5 was torn" in caplog.text


def test_a_full_disk_leaves_the_file_as_it_was(ledger):
    before, old = ledger.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, old[1]))
    try:
        with pytest.raises(OutsideError, match="ledger .*; nothing was recorded"):
            ledger.record(trial())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert ledger.path.read_bytes() == before
    ledger.record(trial())
    assert len(ledger.verify().entries) == 2


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError, match="nothing was recorded"):
        Ledger(tmp_path / "file" / "ledger.jsonl").fix_holdout("recorded", CUT, END)


def test_a_file_that_shrank_under_us(ledger):
    ledger.record(trial())
    ledger.path.write_bytes(b"")
    with pytest.raises(GateError, match="shorter"):
        ledger.view()


WRITER = """
import sys
from test_ledger import Ledger, trial
ledger = Ledger(sys.argv[1])
for k in range(40):
    ledger.record(trial(1000 * int(sys.argv[2]) + k))
    ledger.record(trial(k))  # both writers try these
"""


def test_two_processes_at_once_lose_nothing_and_count_nothing_twice(ledger):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(ledger.path), str(n)], cwd=HERE) for n in (1, 2)
    ]
    assert [w.wait(60) for w in writers] == [0, 0]
    found = Ledger(ledger.path).verify().trials_for("BTC", "recorded", START, CUT)
    assert found.n_trials == len(found.sharpes) == 120
    assert len(ledger.view().entries) == 121


def test_a_process_killed_while_it_writes_leaves_whole_entries(ledger):
    code = WRITER.replace("range(40)", "range(100000)")
    writer = subprocess.Popen([sys.executable, "-c", code, str(ledger.path), "1"], cwd=HERE)
    while len(ledger.view().entries) < 20:
        assert writer.poll() is None
    writer.kill()
    writer.wait()
    seen = len(ledger.view().entries)
    ledger.record(trial(10**6))
    assert len(Ledger(ledger.path).verify().entries) == seen + 1 >= 21


# ---- the holdout ----------------------------------------------------------------------------------------------------
def test_the_holdout_is_fixed_once_per_market(ledger):
    assert ledger.fix_holdout("recorded", CUT, END).seq == 0
    with pytest.raises(InputError, match=r"fixed at 2022-02-17 .* cannot become"):
        ledger.fix_holdout("recorded", CUT + 1, END)
    assert ledger.fix_holdout("simulated:7", START, CUT).seq == 1
    assert ledger.view().holdout("recorded") == (CUT, END) and ledger.view().holdout("elsewhere") is None
    with pytest.raises(InputError, match="empty"):
        ledger.fix_holdout("other", END, CUT)


def test_no_trial_before_the_holdout_or_in_it(ledger):
    for wrong, words in [
        (trial(market="simulated:1"), "before its holdout is fixed"),
        (trial(end_ms=CUT + 1), "reaches into the holdout"),
        (trial(start_ms=CUT, end_ms=END, daily=daily(0, CUT, END)), "reaches into the holdout"),
    ]:
        with pytest.raises(InputError, match=words):
            ledger.record(wrong)
    assert len(ledger.view().entries) == 1


def test_reads_are_counted_per_trial_and_logged_once(ledger):
    first, second = trial(1), trial(2)
    for t in (first, second):
        ledger.record(t)
    entry = ledger.read_holdout(first.id, CUT, END)
    assert ledger.read_holdout(first.id, CUT, END) == entry
    head = ledger.view().head
    ledger.read_holdout(first.id, CUT + DAY_MS, END)  # a shorter read by the same candidate
    ledger.read_holdout(second.id, CUT, END)
    view = ledger.view()
    assert view.holdout_reads("BTC", "recorded") == (first.id, second.id)
    assert view.holdout_reads("ETH", "recorded") == view.holdout_reads("BTC", "simulated:1") == ()
    assert ledger.view(at=head).holdout_reads("BTC", "recorded") == (first.id,)


def test_only_a_recorded_finished_trial_reads_inside_the_holdout(ledger):
    pruned = trial(3, state="pruned", daily=None)
    ledger.record(pruned)
    for unknown in (pruned.id, trial(4).id):
        with pytest.raises(InputError, match="not a finished trial"):
            ledger.read_holdout(unknown, CUT, END)
    ledger.record(trial(4))
    with pytest.raises(InputError, match="read inside it"):
        ledger.read_holdout(trial(4).id, CUT - 1, END)


# ---- trials ---------------------------------------------------------------------------------------------------------
def test_returns_come_back_to_the_last_bit(ledger):
    odd = daily(0)
    odd.iloc[:6] = [0.0, -0.0, 5e-324, -1.0, 1 / 3, 1e30]
    ledger.record(trial(daily=odd))
    found = Ledger(ledger.path).view().trials_for("BTC", "recorded", START, CUT)
    assert found.daily.iloc[:, 0].to_numpy().tobytes() == odd.to_numpy().tobytes()
    assert (found.daily.index == odd.index).all() and found.daily.index.dtype == odd.index.dtype
    assert found.sharpes.tolist() == [sharpe(odd)]


def test_identity_is_what_went_in(ledger):
    base = trial()
    for other in ("code_hash", "data_hash", "params_hash", "market", "coin", "timeframe"):
        assert replace(base, **{other: "x"}).id != base.id
    assert replace(base, issue="x", daily=daily(5)).id == base.id


def test_the_same_trial_again_is_the_same_entry_and_the_record_stands(ledger, caplog):
    entry = ledger.record(trial())
    assert ledger.record(trial(issue="007")) == entry and not caplog.records
    assert ledger.record(trial(daily=daily(99))) == entry and "came out differently" in caplog.text
    assert len(ledger.view().entries) == 2


def test_a_failed_trial_may_finish_later_and_is_still_one(ledger):
    failed = trial(state="failed", daily=None)
    assert ledger.record(failed) == ledger.record(replace(failed, state="pruned"))
    ledger.record(trial())
    assert ledger.record(failed).body["state"] == "finished"
    found = ledger.view().trials_for("BTC", "recorded", START, CUT)
    assert (found.n_trials, found.sharpes.size) == (1, 1)


def test_trials_count_together_by_coin_market_and_overlap(ledger):
    ledger.fix_holdout("simulated:1", CUT, END)
    half = START + 20 * DAY_MS
    early = trial(1, end_ms=half, daily=daily(1, START, half))
    late = trial(2, start_ms=half, daily=daily(2, half))
    for t in (early, late, trial(3, timeframe="4h"), trial(4, coin="ETH"), trial(5, market="simulated:1"),
              trial(6, state="pruned", daily=None), trial(7, daily=daily(7) * 0)):  # fmt: skip
        ledger.record(t)
    view = ledger.view()

    def seeds(*interval):
        return sorted(b["params_hash"] for b in view.trials_for("BTC", "recorded", *interval).bodies)

    assert seeds(START, half) == ["p1", "p3", "p6", "p7"]
    assert seeds(half, CUT) == ["p2", "p3", "p6", "p7"]
    assert seeds(START, CUT) == ["p1", "p2", "p3", "p6", "p7"]
    both = view.trials_for("BTC", "recorded", START, CUT)
    assert (both.n_trials, len(both.finished), both.sharpes.size) == (5, 4, 3)  # one never traded: it has no ratio
    table = pd.concat([early.daily, late.daily, daily(3), daily(7) * 0], axis=1).to_numpy()
    assert np.array_equal(both.daily.to_numpy(), table, equal_nan=True)
    rho = pd.DataFrame(table).corr(min_periods=3).to_numpy()[np.triu_indices(4, 1)]
    assert both.mean_correlation == pytest.approx(np.nanmean(rho))
    assert both.effective_number == pytest.approx(np.nanmean(rho) + (1 - np.nanmean(rho)) * 5)


def test_a_verdict_is_graded_against_the_head_of_its_day(ledger):
    heads = [ledger.record(trial(k)).hash for k in range(6)]
    for k, head in enumerate(heads):
        view = ledger.view(at=head)
        found = view.trials_for("BTC", "recorded", START, CUT)
        assert (view.head, found.head, found.n_trials) == (head, head, k + 1)
    assert ledger.view(at=GENESIS).entries == ()
    with pytest.raises(GateError, match="no entry has the hash"):
        ledger.view(at="f" * 64)


def test_an_absent_ledger_is_an_empty_one(tmp_path):
    view = Ledger(tmp_path / "none").view()
    found = view.trials_for("BTC", "recorded", START, CUT)
    assert view.head == GENESIS and found.n_trials == 0 and found.daily.empty and not (tmp_path / "none").exists()
    assert np.isnan(found.effective_number)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"state": "done"}, "finished, pruned or failed"),
        ({"daily": None}, "without daily returns"),
        ({"end_ms": START}, "is empty"),
        ({"daily": daily(0).drop(daily(0).index[3])}, "without a gap"),
        ({"daily": daily(0).iloc[::-1]}, "without a gap"),
        ({"daily": daily(0).iloc[:0]}, "without a gap"),
        ({"daily": daily(0).shift(freq="1h")}, "UTC midnights"),
        ({"daily": daily(0).tz_localize(None)}, "zone"),
        ({"daily": daily(0, START - DAY_MS)}, "leave the development interval"),
        ({"daily": daily(0, START, CUT + DAY_MS)}, "leave the development interval"),
        ({"daily": daily(0).replace(daily(0).iloc[4], np.nan)}, "value number 4 is nan"),
    ],
)
def test_bad_trials_are_refused_in_one_line_and_leave_no_trace(ledger, wrong, words):
    with pytest.raises(InputError, match=words) as e:
        ledger.record(trial(**wrong))
    assert "\n" not in str(e.value) and len(ledger.view().entries) == 1

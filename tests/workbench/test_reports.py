"""Reports: every link leads somewhere, what is invented says so, what is volatile stands apart."""

import json
import re
from types import SimpleNamespace

import pytest
import yaml

from cryptoalgo.core.provenance import file_digest
from cryptoalgo.workbench.reports import ledger_rows, ledger_text, summary_text, write_overview, write_report
from cryptoalgo.workbench.show import table

from .made_up import ISSUE, published, unit_in

STAGES = ("data", "features", "train", "backtest", "validate")


def outcome(holder, status="computed", **what):
    known = {"done": dict.fromkeys(holder.stages, status), "seconds": dict.fromkeys(holder.stages, 0.5), "changed": [], "same": 0, "peak_mb": 300.0,
             "failed": None, "error": None, "exit_code": 0}
    return SimpleNamespace(holder=holder, **known | what)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "Three coins: one went through, one has no model and no trade, one stopped at its data."
    folder = tmp_path_factory.mktemp("run")
    whole, silent, broken = (unit_in(folder, coin) for coin in ("BTC", "ETH", "SOL"))
    outcomes = [outcome(published(whole)), outcome(published(silent, refused=True)),
                outcome(broken, done={"data": "failed"}, failed="p10_data", error="<b>close</b> is missing", exit_code=2)]
    summary = write_report(ISSUE, outcomes, [], whole.settings)
    return SimpleNamespace(root=folder / "reports" / "issue-1", summary=summary, outcomes=outcomes, settings=whole.settings)


def test_every_link_of_the_page_leads_to_a_file(run):
    page = (run.root / "index.html").read_text()
    links = set(re.findall(r'(?:href|src)="([^"#][^"]*)"', page))
    assert len(links) > 50
    assert [link for link in links if not (run.root / link).is_file()] == []
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))


def test_a_simulated_issue_says_so_everywhere(run):
    page = (run.root / "index.html").read_text()
    assert "<title>SIMULATED · " in page and "<h1>SIMULATED · " in page
    assert all(f'<h2 id="{coin}-1h">SIMULATED · {coin}' in page for coin in ("BTC", "ETH", "SOL"))
    assert summary_text(run.summary).startswith("SIMULATED · ") and "Planted and recovered" in page
    assert "SIMULATED · " in (run.settings.path(run.settings.reports_dir) / "index.html").read_text()


def test_what_failed_is_said_and_escaped(run):
    page, (whole, silent, broken) = (run.root / "index.html").read_text(), run.summary["units"]
    assert "&lt;b&gt;close&lt;/b&gt; is missing" in page and "<b>close</b>" not in page
    assert (broken["status"], broken["tier"], broken["exit_code"], broken["reasons"]) == ("failed", None, 2, ["<b>close</b> is missing"])
    assert silent["tier"] == "REJECT" and silent["trades"] == 0 and silent["refusal"]
    assert whole["trades"] > 0 and whole["planted"]["edge"] == 12.0 and whole["recovered"]["net_sharpe"] == whole["sharpe"]
    assert "open interest of bybit beside prices of binanceusdm" in page


def test_summary_is_the_same_bytes_again_and_has_no_clock(run):
    before = file_digest(run.root / "summary.json")
    for o in run.outcomes:
        o.seconds = {k: v + 1 for k, v in o.seconds.items()}
    write_report(ISSUE, run.outcomes, [], run.settings)
    assert file_digest(run.root / "summary.json") == before
    assert "seconds" not in (run.root / "summary.json").read_text()


def test_manifest_names_everything_and_keeps_the_clock_apart(run):
    manifest = json.loads((run.root / "manifest.json").read_text())
    made_of, folder = manifest["units"]["BTC 1h"], run.root / "BTC" / "1h"
    assert all(file_digest(folder / name) == value for name, value in made_of["artefacts"].items()) and len(made_of["artefacts"]) > 25
    assert all(made_of[k] for k in ("params_hash", "data_hash", "code_hash", "costs_hash")) and set(made_of["code"]) == {*STAGES, "feature_set"}
    assert manifest["ledger_head"] == run.outcomes[1].holder.head or manifest["ledger_head"] == run.outcomes[0].holder.head
    del manifest["volatile"]
    assert not re.search(r"seconds|finished|host\b", json.dumps(manifest))


def test_parameters_and_ledger_entries_stand_beside_the_page(run):
    asked = yaml.safe_load((run.root / "params.yaml").read_text())
    assert asked["BTC 1h"]["simulator"]["edge"] == {"BTC": 12.0, "SOL": 14.0}
    kinds = [json.loads(line)["kind"] for line in (run.root / "ledger.jsonl").read_text().splitlines()]
    assert kinds == ["holdout", "trial", "holdout_read", "trial", "holdout_read"]
    view = run.outcomes[0].holder.ledger.verify()
    rows = ledger_rows(view)
    assert view.head in ledger_text(view.head, rows) and "daily" not in rows[1] and rows[1]["coin"] == "BTC"


def test_the_overview_of_nothing_says_how_to_begin(tmp_path, run):
    settings = run.settings.model_copy(update={"reports_dir": tmp_path})
    assert "cryptoalgo demo" in write_overview(settings).read_text()


def test_a_table_keeps_every_leaf():
    shown = table({"a": {"b": 1, "c": {"d": [1] * 9}}, "e": {}, "f": {"value": None, "reason": "one class only", "low": None, "high": None, "null": 0.5}})
    assert shown["value"].tolist() == ["1", "1, 1, 1, 1, 1, 1, … (9 in all)", "none", "–  against 0.5  (one class only)"]

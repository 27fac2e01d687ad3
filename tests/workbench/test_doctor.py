"""The doctor on a sound machine, and on one with each thing wrong."""

import json
import sys
from importlib import metadata

import pytest

from cryptoalgo.core.ledger import Ledger
from cryptoalgo.core.sections import SimulatorParams
from cryptoalgo.data.replay import ReplayClock, serving
from cryptoalgo.data.simulate import simulate
from cryptoalgo.data.store import Provenance, Store
from cryptoalgo.data.tables import SeriesKey
from cryptoalgo.workbench.cli import main
from cryptoalgo.workbench.doctor import Check, Machine, run_doctor

SOUND = {"coinbase": (0.2, "40 ms"), "binance": (0.1, "30 ms"), "bybit": (0.4, "50 ms"), "yahoo": (0.0, "90 ms")}


def found(report, name) -> Check:
    return next(c for c in report.checks if c.name == name)


@pytest.fixture
def filled(workbench):
    store = Store(workbench.database_url)
    bars = simulate(SimulatorParams(days=60), ["BTC"]).bars["BTC"].drop(columns="is_filled")
    store.upsert(SeriesKey("candles", "binanceusdm", "BTCUSDT", "1h"), bars, Provenance("simulated"))
    store.engine.dispose()
    return workbench


def test_a_sound_machine_is_fit(filled):
    report = run_doctor(filled, ask=lambda m: SOUND)
    assert report.exit_code == 0 and {c.status for c in report.checks} <= {"ok", "warn"}
    assert "1,440 rows, sound" in found(report, "database").found and found(report, "clock").found == "0.20 s from the venues'"
    assert json.dumps(report.to_dict()) and report.text().endswith("Fit for work.")


def test_an_empty_workbench_is_warned_of_and_offline_asks_nobody(workbench):
    report = run_doctor(workbench, offline=True, ask=lambda m: pytest.fail("asked"))
    assert report.exit_code == 0 and found(report, "database").status == "warn" and found(report, "venues").status == "skipped"


@pytest.mark.parametrize(("skew", "status"), [(1.5, "ok"), (-5.0, "warn"), (5.0, "warn"), (61.0, "fail"), (-3600.0, "fail")])
def test_a_skewed_clock(workbench, skew, status):
    report = run_doctor(workbench, ask=lambda m: {"coinbase": (skew, ""), "binance": (skew, ""), "bybit": (0.0, "")})
    assert found(report, "clock").status == status and report.exit_code == (1 if status == "fail" else 0)
    assert status == "ok" or ("behind" in found(report, "clock").found) == (skew > 0)


def test_a_silent_venue_is_the_outside_world_s_fault(workbench):
    report = run_doctor(workbench, ask=lambda m: SOUND | {"okx": (None, "okx: fetch_time failed 1 times")})
    assert report.exit_code == 3 and found(report, "okx").status == "outside" and "exchange_base_url" in found(report, "okx").remedy
    nobody = run_doctor(workbench, ask=lambda m: {"okx": (None, "no"), "yahoo": (None, "no")})
    assert nobody.exit_code == 3 and found(nobody, "clock").status == "skipped"


def test_a_missing_package_and_another_version(workbench):
    def lacking(name):
        if name == "ccxt":
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    report = run_doctor(workbench, True, Machine(workbench, lacking))
    assert report.exit_code == 1 and "ccxt not installed" in found(report, "packages").found and "make setup" in found(report, "packages").remedy
    (workbench.home / "constraints.txt").write_text("numpy==0.0.1\n")
    report = run_doctor(workbench, True)
    assert report.exit_code == 0 and "tested with 0.0.1" in found(report, "packages").found


def test_a_damaged_database_is_a_fault(filled):
    path = filled.home / "data" / "trading.db"
    content = bytearray(path.read_bytes())
    content[40_000:60_000] = b"\xff" * 20_000
    path.write_bytes(content)
    report = run_doctor(filled, True)
    assert report.exit_code == 1 and found(report, "database").status == "fail" and "trading.db" in found(report, "database").found


def test_a_broken_ledger_is_a_fault(workbench):
    ledger = Ledger(workbench.home / "data" / "ledger.jsonl")
    ledger.fix_holdout("recorded", 0, 1)
    ledger.fix_holdout("other", 0, 1)
    path = workbench.home / "data" / "ledger.jsonl"
    path.write_text(path.read_text().replace('"recorded"', '"recordex"', 1))
    report = run_doctor(workbench, True)
    assert report.exit_code == 1 and found(report, "ledger").status == "fail"


def test_unreadable_parameters_are_a_fault(workbench, monkeypatch, tmp_path):
    report = run_doctor(workbench.model_copy(update={"params_dir": tmp_path / "none"}), True)
    assert report.exit_code == 1 and "contract" in found(report, "parameters").found


def test_a_replay_exchange_is_another_time_and_no_skew(filled, monkeypatch, capsys):
    store = Store(filled.database_url)
    with serving(store, ReplayClock("2022-02-20 10:00", 0)) as replay:
        monkeypatch.setenv("CRYPTOALGO_EXCHANGE_BASE_URL", replay.url)
        monkeypatch.setenv("CRYPTOALGO_VENUE_ORDER", '["binanceusdm"]')
        code = main(["doctor", "--json"])
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert code == 0 and checks["clock"]["found"] == "a replay at 2022-02-20 10:00 UTC" and checks["binanceusdm"]["status"] == "ok" == checks["yahoo"]["status"]


def test_without_lightgbm_the_other_checks_are_still_heard(workbench, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    report = run_doctor(workbench, True)
    assert report.exit_code == 1 and found(report, "learners").status == "fail" and "make setup" in found(report, "learners").remedy
    assert found(report, "ledger").status == "ok"


def test_without_ccxt_the_venues_are_a_fault_of_this_machine(workbench, monkeypatch):
    monkeypatch.delitem(sys.modules, "cryptoalgo.data.exchanges", raising=False)
    monkeypatch.setitem(sys.modules, "ccxt", None)
    report = run_doctor(workbench)
    assert report.exit_code == 1 and found(report, "venues").status == "fail" and "ccxt" in found(report, "venues").found


def test_a_source_tree_that_is_not_installed(workbench):
    def nobody(name):
        raise metadata.PackageNotFoundError(name)

    report = run_doctor(workbench, True, Machine(workbench, requires=nobody))
    assert report.exit_code == 1 and "not installed" in found(report, "packages").found


def test_a_venue_that_does_not_exist_is_a_wrong_setting(workbench):
    report = run_doctor(workbench.model_copy(update={"venue_order": ("binanse",)}))
    assert report.exit_code == 1 and "binance" in found(report, "venues").found and "settings.ini" in found(report, "venues").found


def test_a_check_that_breaks_is_a_finding(workbench):
    def broken(m):
        raise RuntimeError("no such luck")

    report = run_doctor(workbench, ask=broken)
    assert report.exit_code == 1 and "RuntimeError: no such luck" in found(report, "venues").found
    (workbench.home / "constraints.txt").write_text("ccxt==4.5.1==2\n")
    assert found(run_doctor(workbench, True), "packages").status == "warn"

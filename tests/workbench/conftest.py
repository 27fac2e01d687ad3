"""A workbench in miniature: its own folder, ledger and database, two simulated coins, a year of hours."""

import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from cryptoalgo.core.settings import load_settings
from cryptoalgo.workbench.run import run_issue
from cryptoalgo.workbench.runner import RunOptions

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "simulator": {"seed": 7, "days": 300, "edge": {"BTC": 14}},
    "data": {"source": "simulator", "venue": "simulator", "funding_venue": "simulator", "oi_venue": "simulator"},
    "costs": {"venue": "simulator"},
    "features": {"groups": ["momentum", "volatility", "funding_oi", "regime"]},
    "splits": {"min_train_days": 120, "n_folds": 2},
    "model": {"name": "lightgbm", "n_estimators": 20, "max_depth": 3, "num_leaves": 8, "min_child_samples": 50, "min_auc": 0.5},
    "labels": {"kind": "triple_barrier"},
    "rules": {"archetype": None, "side": "model", "threshold": 0.55, "vol_mult_tp": 4.0, "vol_mult_sl": 4.0, "cooldown_bars": 0, "max_hold_bars": 24,
              "filters": dict.fromkeys(("min_sigma", "max_sigma", "min_momentum", "trend_bars", "max_funding_z", "max_spread", "regimes", "max_correlation"))
              | {"same_sign": False, "margin": 0.0}, "breakeven_sigma": None, "trail_sigma": None, "size": {"notional_usd": 50_000.0, "profile": False}},
    "validation": {"holdout_interval_days": 60, "holdout_days": 40, "bootstrap_paths": 200},
}


def furnish(home: Path) -> Path:
    "A folder with what a workbench is made of."
    (home / "settings.ini").write_text("[cryptoalgo]\nworkers = 2\n")
    shutil.copytree(ROOT / "params", home / "params")
    (home / "nbs").mkdir()
    shutil.copytree(ROOT / "nbs" / "pipeline", home / "nbs" / "pipeline")
    return home


def write_issue(home: Path, number: int = 7, **changes) -> Path:
    "An issue over SMALL."
    issue = {"issue": number, "name": "mini", "title": "Small", "question": "Does it run?", "coins": ["BTC", "ETH"],
             "timeframes": ["1h"], "params": SMALL} | changes
    path = home / "params" / "issues" / f"{number:03d}-mini.yaml"
    path.write_text(yaml.safe_dump(issue))
    return path


@pytest.fixture
def workbench(tmp_path, monkeypatch):
    "Settings of a fresh workbench; the working directory is its home."
    furnish(tmp_path)
    for name in ("TRADER_DB_URL", "TRADER_DB_PATH", "CRYPTOALGO_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CRYPTOALGO_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return load_settings(home=tmp_path)


@contextmanager
def elsewhere(home: Path):
    "Settings of a furnished folder that is not a test's own."
    furnish(home)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TRADER_DB_URL", "TRADER_DB_PATH"):
            patch.delenv(name, raising=False)
        patch.setenv("CRYPTOALGO_HOME", str(home))
        yield load_settings(home=home)


@pytest.fixture(scope="module")
def kept_results(tmp_path_factory):
    "Stage results of the small issue, as a workbench keeps them."
    with elsewhere(tmp_path_factory.mktemp("kept")) as settings:
        run_issue(write_issue(settings.home), settings, RunOptions(notebooks=False))
    return settings.home / "data" / "prepared"


@pytest.fixture
def warm(workbench, kept_results):
    "A workbench with no report and an empty ledger, which need not compute again what another one has kept."
    shutil.copytree(kept_results, workbench.home / "data" / "prepared")
    return workbench


@pytest.fixture
def issue_file(workbench):
    "`issue_file(**changes)` writes an issue over SMALL and returns its path."
    return partial(write_issue, workbench.home)

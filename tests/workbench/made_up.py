"""A unit of the demo issue whose results are made up: what figures, artefacts and reports are tried on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cryptoalgo.core.bootstrap import bootstrap_sharpe
from cryptoalgo.core.evidence import judge, verdict_paragraph
from cryptoalgo.core.params import load_issue, resolve
from cryptoalgo.core.profiles import load_costs
from cryptoalgo.core.settings import load_settings
from cryptoalgo.features.dataset_qa import dataset_qa
from cryptoalgo.models.scores import as_plain, calibration_bins, deciles, score
from cryptoalgo.core.ledger import Span
from cryptoalgo.research.dataset import Dataset, Development
from cryptoalgo.research.experiment import Tested, Trained
from cryptoalgo.research.series import Experiment, Series
from cryptoalgo.research.verdict import Verdict
from cryptoalgo.trading.diagnostics import diagnose, waterfall
from cryptoalgo.trading.engine import backtest, daily_returns, read_config
from cryptoalgo.trading.performance import metrics
from cryptoalgo.workbench.pipeline import Unit

ROOT = Path(__file__).resolve().parents[2]
ISSUE = load_issue(ROOT / "params" / "issues" / "001-demo.yaml")
DAYS = 120
START = pd.Timestamp("2024-01-01", tz="UTC")


def unit_in(folder: Path, coin: str = "BTC") -> Unit:
    "A coin of the demo issue, its report and its cache under `folder`."
    settings = load_settings(home=ROOT, data_dir=folder / "data", reports_dir=folder / "reports")
    params = resolve(ROOT / "params", ISSUE, coin, [f"simulator.days={2 * DAYS}", "simulator.start='2024-01-01'", "validation.holdout_days=60"])
    end = int((START + pd.Timedelta(days=2 * DAYS)).timestamp() * 1000)
    holdout = Span(end - DAYS * 86_400_000, end)
    x = Experiment(coin, "1h", params, load_costs(ROOT / "params" / "venues.yaml", params.costs), holdout)
    return Unit(ISSUE.issue, ISSUE.title, x, folder / "reports" / "issue-1" / coin / "1h", settings)


def series(seed: int = 0) -> Series:
    "Bars, funding and open interest of an invented coin."
    rng, n = np.random.default_rng(seed), 24 * DAYS
    index = pd.date_range(START, periods=n, freq="h", unit="ms", name="event_time")
    close = 100 * np.exp(np.cumsum(0.005 * rng.normal(size=n)))
    open_ = np.concatenate([[100.0], close[:-1]])
    bars = pd.DataFrame({"open": open_, "high": np.maximum(open_, close) * 1.001, "low": np.minimum(open_, close) / 1.001, "close": close,
                         "volume": 1.0, "available_time": index + pd.Timedelta("1h"), "is_filled": False}, index)
    funding = pd.DataFrame({"funding_rate": 1e-4, "available_time": index[::8]}, index[::8])
    interest = pd.DataFrame({"open_interest": 1e6 + np.arange(n), "available_time": index}, index)
    return Series(bars, funding, interest)


def results(unit: Unit, refused: bool = False) -> dict:
    "A result per stage; `refused`: no model, so no answers and no trades."
    s, rng = series(), np.random.default_rng(1)
    index, n = s.bars.index, len(s.bars)
    ret = s.bars["close"].shift(-1) / s.bars["close"] - 1
    labels = pd.DataFrame({"y": np.sign(ret), "ret": ret, "t_start": index, "t_end": index + pd.Timedelta("1h"), "weight": 1.0}, index)
    features = pd.DataFrame(rng.normal(size=(n, 20)).astype("float32"), index, [f"f_{i}" for i in range(20)])
    features.iloc[:100, 0] = np.nan
    certificate = {"passed": True, "breaches": [], "hashes": {}, "coverage": {"columns": list(features.columns), "rows": n, "stretch": {"cuts": 336}}}
    bounds = index[[0, 719, 720, 1439]]
    dataset = Dataset(features, labels, pd.DataFrame({"fold": [0, 1], "test_from": bounds[[0, 2]]}), {"labelled_rows": n}, certificate, dataset_qa(features, labels["y"]))
    answers = pd.DataFrame({"prob": 0.5 + 4 * ret.fillna(0) + 0.05 * rng.normal(size=n), "fold": np.arange(n) // 1440, "model_id": "made"}, index)
    answers = answers.iloc[:0] if refused else answers.assign(prob=answers["prob"].clip(0.01, 0.99))
    return {"data": Development(s, _qa(unit, n), "d" * 64), "features": dataset, "train": _trained(answers, labels, bounds, refused),
            "backtest": _tested(unit, s, answers), "validate": _verdict(unit, s, answers)}


def _qa(unit: Unit, n: int) -> dict:
    return {"symbol": unit.experiment.symbol, "rows": n, "first": "2024-01-01T00:00:00Z", "last": "2024-04-29T23:00:00Z", "gaps": 0, "filled_bars": 0, "holes": [],
            "waivers": ["open interest of bybit beside prices of binanceusdm, 2021-01-01 to 2026-03-31: another venue's"], "simulated": True,
            "planted": {"coin": unit.experiment.coin, "edge": 12.0, "half_life_h": 24.0, "sharpe": 12.3, "standard_error": 0.9}}


def _trained(answers, labels, bounds, refused: bool) -> Trained:
    known = labels.loc[answers.index]
    nothing = {name: [np.nan, np.nan] for name in ("ic", "ic_low", "ic_high", "auc", "auc_low", "auc_high")}
    skill = nothing if refused else {"ic": [0.1, 0.05], "ic_low": [0.05, -0.01], "ic_high": [0.15, 0.1], "auc": [0.55, 0.52], "auc_low": [0.52, 0.49], "auc_high": [0.58, 0.55]}
    folds = pd.DataFrame({"fold": [0, 1], "test_first": bounds[[0, 2]], "test_last": bounds[[1, 3]], **skill})
    importance = pd.DataFrame({"feature": [f"f_{i}" for i in range(20)], "gain": np.arange(20.0, 0, -1)})
    learning = pd.DataFrame({"iteration": [1, 2, 3], "train": [0.69, 0.68, 0.67], "out_of_fold": [0.69, 0.685, 0.687]})
    cut = 0 if refused else None
    directed = (known["y"].notna() & (known["y"] != 0)).to_numpy()
    return Trained(answers, known[["y", "ret"]], as_plain(score(answers["prob"], known["y"], known["ret"], 1)), folds, importance.iloc[:cut],
                   calibration_bins(answers["prob"][directed], known["y"][directed] > 0), deciles(answers["prob"], known["y"], known["ret"]), learning.iloc[:cut],
                   "AUC 0.497 on purged folds; 0.5 is needed" if refused else None, None)


def _run(unit: Unit, s: Series, answers: pd.DataFrame):
    symbol = unit.experiment.symbol
    sure = answers[answers["prob"] > 0.55].iloc[::20]
    decisions = pd.DataFrame({"event_time": sure.index, "symbol": symbol, "side": 1, "prob": sure["prob"].to_numpy()})
    config = read_config({"fee_bps": 5, "slippage_bps": 2, "vol_mult_tp": 4, "vol_mult_sl": 4, "max_hold_bars": 24, "size": {"notional_usd": 100_000}})
    return backtest({symbol: s.bars}, decisions, {symbol: s.funding}, config)


def _tested(unit: Unit, s: Series, answers: pd.DataFrame) -> Tested:
    run = _run(unit, s, answers)
    daily = daily_returns(run).to_frame("net").assign(gross=lambda d: d["net"] * 1.1)
    table = waterfall(run.trades, run.trades["exit_reason"]).reset_index()
    found = metrics(run) | {"net_edge_bps": 3.0 if len(run.trades) else None, "gross_return": 0.1, "gross_sharpe": 1.2, "stressed_return": -0.1}
    signals = run.decisions.assign(spread=0.0, score=run.decisions["prob"], filter="")
    return Tested(signals, run.trades, run.equity, daily, table, found, diagnose(run, {unit.experiment.symbol: s.bars}))


def _verdict(unit: Unit, s: Series, answers: pd.DataFrame) -> Verdict:
    run, v = _run(unit, s, answers), unit.experiment.params.validation
    daily = daily_returns(run)
    traded = len(run.trades) > 0
    evidence = judge({"trades": len(run.trades), "holdout_positive": metrics(run)["net_return"]}, v.checks, v.gates)
    draws = bootstrap_sharpe(daily, 10.0, 200, 1) if traded else np.empty(0)
    robustness = {"n_trials": 1, "effective_trials": None, "holdout_readers": 1} | ({"bootstrap_sharpe_p5": -0.1, "bootstrap_sharpe_p95": 2.0} if traded else {})
    return Verdict(answers, run.trades, run.equity, s.bars, {}, metrics(run) | {"gross_sharpe": 1.0}, robustness, pd.DataFrame({"sharpe": draws}), pd.DataFrame(),
                   evidence.to_dict(), str(evidence.tier), evidence.score, verdict_paragraph(evidence, unit.experiment.coin))


def published(unit: Unit, refused: bool = False) -> Unit:
    "The unit with all its made-up results kept and published, as if it had run."
    unit.ledger.fix_holdout(unit.experiment.market, *unit.experiment.holdout)
    for name, result in results(unit, refused).items():
        if name == "validate":
            trial = unit.trial()
            unit.ledger.record(trial)
            unit.ledger.read_holdout(trial.id, *unit.experiment.exam)
            unit = replace(unit, head=unit.ledger.view().head)
        unit.cache.keep(name, unit.key(name), result)
        unit.run(name)
    unit.write()
    return unit

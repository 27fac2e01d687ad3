"""Figures: the same bytes on every run, honest titles, and words where there is nothing to draw."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from cryptoalgo.models.criteria import judged, summed_up
from cryptoalgo.models.return_scores import score_returns
from cryptoalgo.models.scores import as_plain
from cryptoalgo.workbench import figures, trade_figures, training_figures
from cryptoalgo.workbench.artefacts import publish
from cryptoalgo.workbench.style import Subject, in_words, save_png

from .made_up import results, series, unit_in

STAGES = ("data", "features", "train", "backtest", "validate")


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    return unit_in(tmp_path_factory.mktemp("unit"))


@pytest.mark.parametrize("refused", [False, True])
def test_publishing_twice_leaves_equal_bytes(unit, refused):
    def written():
        return {f.relative_to(unit.folder): f.read_bytes() for stage in STAGES for f in publish(results(unit, refused)[stage], unit)}

    first = written()
    matplotlib.rcParams["font.size"] = 30  # what a session has set does not leak into a figure
    try:
        assert written() == first
    finally:
        matplotlib.rcdefaults()
    assert len([f for f in first if f.suffix == ".png"]) == 19  # every figure is there, drawn or in words


def test_every_title_of_a_simulated_market_says_so(unit, monkeypatch):
    titles = []
    monkeypatch.setattr("cryptoalgo.workbench.artefacts.save_png", lambda figure, path: titles.append(figure.texts[0].get_text()) or path)
    for refused in (False, True):
        for stage, result in results(unit, refused).items():
            if stage != "backtest":  # needs the predictions' file
                publish(result, unit)
    assert len(titles) > 20 and all(title.startswith("SIMULATED · BTC 1h · ") for title in titles)


def test_a_model_of_turning_points_leaves_its_criteria(unit):
    p = unit.experiment.params
    turning = p.model_copy(update={"labels": p.labels.model_copy(update={"kind": "turning_point_return"}), "model": p.model.model_copy(update={"task": "return"})})
    place = replace(unit, asked=replace(unit.asked, params=turning), folder=unit.folder / "turning")
    made = results(unit)["train"]
    yhat, y = 0.9 * made.outcomes["y"], made.outcomes["y"]
    scores = made.scores | as_plain(score_returns(yhat, y, 1))
    table = made.folds.assign(learned_r2=1.0, **{f"{name}{end}": 0.9 for name in ("signal_r2", "direction_accuracy") for end in ("", "_low", "_high")})
    publish(replace(made, predictions=made.predictions.assign(yhat=yhat), scores=scores, folds=table), place)
    told = json.loads((place.folder / "metrics_test.json").read_text())["criteria"]
    assert [(row["name"], row["verdict"]) for row in told[:2]] == [("signal_r2", "PASS"), ("direction_accuracy", "PASS")]
    assert told[0]["threshold"] == 0.70 and told[-1] | {"words": ""} == told[-1] | {"verdict": "not measured", "value": None, "words": ""}
    drawn = {f.name for f in (place.folder / "proof").glob("*.png")}
    assert {"training_criteria.png", "training_regression.png", "training_residuals.png"} <= drawn
    publish(results(unit)["train"], replace(place, asked=unit.asked))
    assert not (place.folder / "proof" / "training_criteria.png").exists()


def test_the_criteria_figure_says_every_verdict_and_threshold():
    table = judged({"signal_r2": 0.19, "train_test_gap": 0.31, "sharpe": 9.0}, *(getattr(unit_in(Path('x')).experiment.params.validation, key) for key in ("criteria", "red_flags")))
    figure = training_figures.criteria(Subject("BTC 1h", False), table, summed_up(table))
    said = [t.get_text() for t in figure.axes[0].texts]
    assert said[0] == "FAIL   0.19   (must be ≥ 0.70)" and said[1] == "FAIL, not measured   (must be ≥ 95.0%)"
    assert "RED FLAG   9.0   (must be ≤ 5.0)" in said and len(said) == len(table)


@pytest.mark.parametrize("rows", [0, 5])
def test_too_few_answers_are_said_in_words(rows):
    few = pd.DataFrame({"said": range(rows), "came": range(rows)}, pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC"), dtype=float)
    for figure in (training_figures.regression(Subject("BTC 1h", False), few, ("a", "b")), training_figures.residuals(Subject("BTC 1h", False), few, "σ")):
        assert figure.axes[0].texts[0].get_text().startswith(f"{rows} pairs")


def test_a_recorded_market_is_not_called_simulated():
    s = series()
    figure = figures.market(Subject("BTC 1h", False), s.bars, s.funding, None)
    assert figure.texts[0].get_text().startswith("BTC 1h · 2,880 bars")
    assert len(figure.axes) == 2


def test_equity_says_the_numbers_of_its_account():
    days = pd.date_range("2024-01-01", periods=4, freq="D", tz="UTC", unit="ms")
    growth, drawdown = pd.DataFrame({"net": [0.1, 0.05, 0.07, 0.08]}, days), pd.Series([0, -0.05, -0.031, -0.02], days)
    figure = trade_figures.equity_curve(Subject("BTC 1h", False), growth, drawdown, 4.2)
    title = figure.texts[0].get_text().replace("\n", " ")
    assert title == "BTC 1h · out of sample, +8.0% net in 4 days: Sharpe 4.20, worst drawdown −5.0%"


def test_the_drawn_account_ends_where_the_metrics_end(unit, monkeypatch):
    drawn = {}
    monkeypatch.setattr("cryptoalgo.workbench.artefacts.save_png", lambda figure, path: drawn.update({path.name: figure}) or path)
    made = results(unit)
    for stage in STAGES:
        publish(made[stage], unit)
    for name, metrics in (("equity_curve.png", made["backtest"].metrics), ("validation_holdout.png", made["validate"].metrics)):
        ends = {line.get_label(): line.get_ydata()[-1] for line in drawn[name].axes[0].lines}
        assert ends["net"] == pytest.approx(metrics["net_return"])


def test_the_waterfall_ends_at_net():
    parts = {"gross": 100.0, "slippage": -20.0, "fees": -50.0, "funding": 5.0, "net": 35.0}
    heights = [p.get_height() + p.get_y() for p in trade_figures.waterfall(Subject("BTC 1h", False), parts, 3).axes[0].patches]
    assert heights[:4] == [100.0, 80.0, 30.0, 35.0] and heights[4] == 35.0


def test_a_single_trade_is_drawn():
    trades = pd.DataFrame({"net": [43.0], "exit_reason": pd.Series(["take_profit"], dtype="str")})
    figure = trade_figures.trade_results(Subject("DOGE 1h", False), trades, pd.Series([1000.0]))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["take profit  n=1"]


def test_checks_show_what_was_not_measured_as_failed(unit):
    evidence = results(unit, refused=True)["validate"].evidence
    texts = [t.get_text() for t in trade_figures.checks(Subject("BTC 1h", True), evidence).axes[0].texts]
    assert len(texts) == len(evidence["checks"])
    assert any(t.startswith("✗ not measured") for t in texts) and not any(t.startswith("✓ not measured") for t in texts)


def test_a_png_appears_whole_or_not_at_all(tmp_path):
    figure = in_words("nothing", "to see")
    figure.savefig = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("disk"))
    with pytest.raises(RuntimeError):
        save_png(figure, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []

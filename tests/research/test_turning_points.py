"The market made for the turning-point criteria passes them, walked forward out of sample; the ordinary demo market does not."

from pathlib import Path

import pandas as pd
import pytest

from cryptoalgo.core.params import load_issue, resolve
from cryptoalgo.data.simulate import simulate
from cryptoalgo.features import catalogue  # noqa: F401  registers every group
from cryptoalgo.features.labels import make_labels
from cryptoalgo.features.registry import FeatureSet
from cryptoalgo.features.splits import WalkForward
from cryptoalgo.features.turning_points import turning_points
from cryptoalgo.features.weights import sample_weights
from cryptoalgo.models.criteria import judged, summed_up, turning_point_values
from cryptoalgo.models.scores import as_plain
from cryptoalgo.models.training import final_fit, walk_forward

PARAMS = Path(__file__).resolve().parents[2] / "params"
SEEN = ("momentum", "trend", "volatility", "interactions")  # what a chart shows; the rest is left out for speed


def held_against_the_criteria(*sets: str) -> pd.DataFrame:
    "Issue 3 on two years of BTC: features, labels, weights, two folds, verdicts."
    p = resolve(PARAMS, load_issue(PARAMS / "issues" / "003-turning-points.yaml"), "BTC", ["simulator.days=730", *sets])
    bars = simulate(p.simulator, ["BTC"]).bars["BTC"]
    features = FeatureSet(SEEN, "1h").compute(bars)
    labels = make_labels(bars, p.labels)
    known = labels.dropna(subset=["y"])
    weight = sample_weights(known, bars.index, None, p.weights.oldest, turning_points(bars, "1h")["turning_point"], p.weights.signal_factor)
    labels = labels.assign(weight=weight.reindex(labels.index))
    folds = WalkForward("anchored", 365, 2, p.splits.embargo_bars).split(labels["t_start"], labels["t_end"], labels.index)
    model = p.model.model_copy(update={"min_auc": 0.0})  # a model without skill is to be judged too, not refused
    training, final = walk_forward(features, labels, folds, model, p.seed), final_fit(features, labels, model, p.seed)
    values = turning_point_values(as_plain(training.scores["overall"]), training.folds["learned_r2"].mean(), final.importance_)
    return judged(values, p.validation.criteria, p.validation.red_flags)


@pytest.mark.parametrize("sets, passed", [
    ((), {"signal_r2", "direction_accuracy", "train_test_gap", "top_importance", "signal_rate"}),
    (("simulator.turning_points=null", "simulator.edge={BTC: 12}"), {"top_importance", "signal_rate"}),
])
def test_criteria_pass_on_the_market_made_for_them_alone(sets, passed):
    table = held_against_the_criteria(*sets)
    asked = table[table["kind"] == "criterion"].set_index("name")
    assert asked["value"].notna().all()
    assert set(asked.index[asked["verdict"] == "PASS"]) == passed, table["words"].tolist()
    assert summed_up(table).startswith(f"{'all 5' if len(passed) == 5 else f'{len(passed)} of 5'} criteria pass")

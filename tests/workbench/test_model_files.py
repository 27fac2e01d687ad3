"A report holds one model: what an earlier one left is gone, whatever its learners called their files."

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.core.sections import ModelParams
from cryptoalgo.models.estimators import Model
from cryptoalgo.workbench.artefacts import publish

from .made_up import results, unit_in

SMALL = {"name": "lightgbm", "n_estimators": 3, "max_depth": 3, "num_leaves": 8, "learning_rate": 0.1, "min_child_samples": 30, "lambda_l1": 0.1,
         "lambda_l2": 0.1, "max_bin": 63, "calibration": "platt", "calibration_folds": 2, "min_rows": 100, "min_class_rows": 15, "min_auc": 0.0}


def model(**changes):
    times = pd.date_range("2024-01-01", periods=400, freq="h", tz="UTC", unit="ms", name="event_time")
    x = np.random.default_rng(1).normal(size=(400, 3)).astype("float32")
    labels = pd.DataFrame({"y": np.sign(x[:, 0]), "t_start": times + pd.Timedelta("1h"), "t_end": times + pd.Timedelta("2h")}, times)
    fitted = Model(ModelParams(**{**SMALL, **changes})).fit(pd.DataFrame(x, times, ["rsi_14", "stoch", "di_diff"]), labels)
    assert fitted.refusal_ is None
    return fitted


@pytest.mark.parametrize("then", [{"name": "ridge"}, {"name": "average", "members": ("xgboost", "hist_gradient_boosting"), "offsets_days": (0,)}, None])
def test_a_new_model_leaves_nothing_of_the_old(then, tmp_path):
    unit = unit_in(tmp_path)
    trained = results(unit)["train"]
    stack = model(name="stack", members=("lightgbm", "hist_gradient_boosting"), offsets_days=(0, 3))
    object.__setattr__(trained, "model", stack)
    publish(trained, unit)
    own = set(stack.files())
    assert all((unit.folder / name).read_bytes() == data for name, data in stack.files().items())
    beside = unit.folder / "unit.json"
    beside.write_text("{}")
    after = model(**then) if then else None
    object.__setattr__(trained, "model", after)
    publish(trained, unit)
    kept = set(after.files()) if after else set()
    here = {p.relative_to(unit.folder).as_posix() for p in unit.folder.rglob("*")}
    assert not (own - kept) & here and kept <= here and beside.exists()
    assert after is None or Model.load(unit.folder).model_id_ == after.model_id_
    assert not [p for p in unit.folder.glob("*-*d") if p.name not in {name.split("/")[0] for name in kept}]

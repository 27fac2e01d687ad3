"""The account of a dataset: counts against plain numpy, drift called when it is there and not when rows are merely alike."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from cryptoalgo.core.provenance import plain
from cryptoalgo.core.statistics import psi_critical
from cryptoalgo.features.dataset_qa import dataset_qa, drift, drift_table, effective_rows

HOURS = pd.date_range("2024-01-01", periods=24 * 150, freq="h", tz="UTC", unit="ms", name="event_time")


def smooth(seed, halflife, n=len(HOURS)):
    x = np.random.default_rng(seed).normal(0, 1, n)
    return x if not halflife else pd.Series(x).ewm(halflife=halflife).mean().to_numpy()


def parts(x):
    return x[-24 * 120:-24 * 30], x[-24 * 30:]


@pytest.mark.parametrize("halflife", [0, 1, 6, 24, 72])
def test_features_that_did_not_drift_are_accused_at_most_at_about_the_stated_rate(halflife):
    "At 95 %: of 150, 5 % are 7.5 with a deviation of 2.7; the plain critical value accuses most of the slow ones."
    found = [drift(*parts(smooth(seed, halflife))) for seed in range(150)]
    assert sum(f["drifted"] for f in found) <= 16
    if halflife >= 6:
        assert sum(f["psi"] > f["critical_independent"] for f in found) > 80


@pytest.mark.parametrize(("halflife", "shift"), [(0, 0.5), (6, 0.5), (24, 0.7)])
def test_a_feature_that_moved_is_found(halflife, shift):
    found = []
    for seed in range(40):
        x = smooth(seed, halflife)
        old, new = parts(x)
        found.append(drift(old, new + shift * max(1, 4 * (halflife > 0)) * x.std())["drifted"])
    assert np.mean(found) > 0.9


def test_effective_rows_of_an_autoregression_are_the_textbook_s():
    "n(1 − φ)/(1 + φ) of an AR(1)."
    for phi in (0.0, 0.5, 0.9):
        rng, worth = np.random.default_rng(1), []
        for _ in range(30):
            e = rng.normal(size=4000)
            x = np.empty(4000)
            x[0] = e[0]
            for i in range(1, 4000):
                x[i] = phi * x[i - 1] + e[i]
            worth.append(effective_rows(x))
        assert np.median(worth) == pytest.approx(4000 * (1 - phi) / (1 + phi), rel=0.2)
    assert effective_rows(np.ones(50)) == 50 and 1 <= effective_rows(np.arange(50.0)) < 5


def test_numbers_are_those_of_their_definitions():
    x = smooth(3, 0)
    old, new = parts(x)
    found = drift(old, new)
    edges = np.quantile(old, np.linspace(0.1, 0.9, 9))
    a, b = (np.bincount(np.searchsorted(edges, v), minlength=10) / len(v) for v in (old, new))
    assert found["psi"] == pytest.approx(((b - a) * np.log(b / a)).sum(), rel=1e-12)
    assert found["critical_independent"] == psi_critical(len(old), len(new), 10) and found["ks"] == pytest.approx(ks_2samp(old, new).statistic)
    n, m = found["rows_worth"]
    assert found["critical"] == pytest.approx(psi_critical(n, m, 10), rel=1e-2)


def test_the_account_counts_what_is_there():
    features = pd.DataFrame({f"f{i}": smooth(i, 6) for i in range(25)}, index=HOURS).astype("float32")
    features.iloc[:300, 0] = np.nan
    features.iloc[-50:, 1] = np.nan
    y = pd.Series(np.where(np.arange(len(HOURS)) % 4 == 0, 1.0, -1.0), index=HOURS).where(np.arange(len(HOURS)) < len(HOURS) - 10)
    qa = dataset_qa(features, y, ["f24", "f1", "nobody"])
    names = [row["feature"] for row in qa["features"]]
    assert names[:3] == ["f24", "f1", "f0"] and len(names) == 20 and qa["chosen_by"] == "importance"
    by = {row["feature"]: row for row in qa["features"]}
    assert by["f0"]["missing"] == 300 / 3600 and by["f1"]["missing_recent"] == 50 / 720 and by["f0"]["missing_recent"] == 0
    assert qa["target"] == {"rows": 3600, "known": 3590, "positive": 898, "positive_rate": 898 / 3590}
    assert dataset_qa(features, y)["chosen_by"] == "order of the registry"
    assert json.loads(json.dumps(plain(qa))) and list(drift_table(qa).index) == names


@pytest.mark.parametrize(("column", "says"), [
    (np.full(len(HOURS), 3.0), "constant at 3 before"), (np.full(len(HOURS), np.nan), "0 and 0 values; at least 100"),
    (np.where(np.arange(len(HOURS)) < len(HOURS) - 720, 3.0, 4.0), "constant at 3 before, not any more"),
    (np.where(np.arange(len(HOURS)) % 20, np.nan, 1.0) * smooth(1, 0), "36 values; at least 100")])
def test_where_there_is_nothing_to_compare_that_is_said_and_no_number_given(column, says):
    row = dataset_qa(pd.DataFrame({"x": column}, index=HOURS), pd.Series(np.nan, HOURS))["features"][0]
    assert says in row["note"] and "psi" not in row and "drifted" not in row


def test_an_empty_dataset_has_an_account():
    qa = dataset_qa(pd.DataFrame({"x": []}, index=HOURS[:0], dtype="float64"), pd.Series([], index=HOURS[:0], dtype="float64"))
    assert qa["rows"] == 0 and qa["target"]["positive_rate"] is None and "0 and 0 values" in qa["features"][0]["note"]

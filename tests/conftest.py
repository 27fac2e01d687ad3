"""What needs more than this machine has is skipped and listed; under CRYPTOALGO_CI=1 it fails instead."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
CI = os.environ.get("CRYPTOALGO_CI") == "1"


def missing(what: str, remedy: str) -> None:
    "Skip a test that needs what this machine lacks; in CI it fails."
    message = f"{what} is missing: {remedy}"
    if CI:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def lacking():
    "`lacking(what, remedy)` ends a test that needs what this machine does not have."
    return missing


@pytest.fixture(scope="session")
def deep(lacking):
    "PyTorch and what reads ONNX."
    for module in ("torch", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            lacking(module, 'pip install "cryptoalgo[deep]"')
    import torch

    return torch


@pytest.fixture(scope="session")
def data_dir() -> Path:
    "The folder of recorded market data named by CRYPTOALGO_DATA."
    path = Path(os.environ.get("CRYPTOALGO_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not path.is_dir():
        missing(f"recorded market data ({path})", "name its folder in CRYPTOALGO_DATA")
    return path


def reference_entries() -> list[dict]:
    "The entries of the file named by CRYPTOALGO_REFERENCE."
    path = Path(os.environ.get("CRYPTOALGO_REFERENCE", ROOT.parent / "shared" / "reference" / "statistics.json"))
    if not path.is_file():
        missing(f"reference numbers ({path})", "name their file in CRYPTOALGO_REFERENCE")
    return json.loads(path.read_text())["entries"]


@pytest.fixture(scope="session")
def reference():
    "`reference(name)` is the entry of that name in the file named by CRYPTOALGO_REFERENCE."
    return {e["name"]: e for e in reference_entries()}.__getitem__


@pytest.fixture(scope="session")
def references():
    "`references(prefix)` are all entries whose names begin so; at least one."

    def beginning(prefix):
        found = [e for e in reference_entries() if e["name"].startswith(prefix)]
        assert found, f"no entry begins with '{prefix}'"
        return found

    return beginning


@pytest.fixture(scope="session")
def close_to():
    "`close_to(actual, expected, tolerance)`: |a - e| <= tolerance * max(1, |e|), elementwise; null is NaN."

    def check(actual, expected, tolerance) -> bool:
        a = np.asarray(actual, dtype=float)
        e = np.asarray([np.nan if x is None else x for x in np.ravel(np.asarray(expected, dtype=object))], dtype=float)
        e = e.reshape(np.shape(expected))
        both_nan = np.isnan(a) & np.isnan(e)
        return bool(np.all(both_nan | (np.abs(a - e) <= tolerance * np.maximum(1.0, np.abs(e)))))

    return check

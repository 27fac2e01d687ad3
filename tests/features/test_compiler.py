"""The generated module: named by its text, written whole, mended when damaged, found again by another process."""

import subprocess
import sys

import numpy as np
import pytest

from cryptoalgo.core.errors import InputError, OutsideError
from cryptoalgo.features import compiler, kernels
from cryptoalgo.features.expressions import INPUTS, every, highest, lag, mean, scan, skew, source, total

close, volume = source("close"), source("volume")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    "An empty cache folder."
    monkeypatch.setenv("CRYPTOALGO_CACHE_DIR", str(tmp_path))
    compiler.load.cache_clear()
    yield tmp_path / "features"
    compiler.load.cache_clear()


def text_of(*roots):
    return compiler.module_source(list(roots), [r.lookback for r in roots])


def run(program, columns, X, first=0):
    out = np.empty((X.shape[1], columns), np.float32)
    program.run(np.full(program.state, np.nan), first, 0, X, out, 0, X.shape[1], 0)
    return out


def market(n=400):
    X = np.full((len(INPUTS), n), np.nan)
    X[3], X[4] = np.random.default_rng(2).normal(100, 1, (2, n))
    return X


def test_equal_parts_are_computed_once():
    body = text_of(mean(close, 20) / close, close - mean(close, 20), skew(close, 20)).split("def run")[1]
    assert body.count("roll_moments(") == 1 and "roll_mean(" not in body and body.count("X[") == 1
    lags = text_of(lag(close, 1), lag(close, 100)).split("def run")[1]
    assert lags.count("& 127)] = ") == 1  # one ring, as long as the longest lag asks


def test_only_the_kernels_that_are_called_travel_with_the_module():
    text = text_of(highest(close, 5))
    assert "def bigger" in text and "def roll_max" in text and "def smooth" not in text


def test_a_damaged_file_is_mended_and_the_cache_is_found_again(cache):
    text = text_of(total(volume, 5))
    program = compiler.load(text)
    expected = run(program, 1, market())
    file, = cache.glob("*.py")
    file.write_text(text.replace("def run", "def ran"))
    compiler.load.cache_clear()
    assert np.array_equal(run(compiler.load(text), 1, market()), expected, equal_nan=True)
    assert file.read_text() == text
    script = ("import sys; from cryptoalgo.features.compiler import load;"
              "print(sum(load(open(sys.argv[1]).read()).run.stats.cache_hits.values()))")
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_machine_code_lies_beside_its_module_whatever_numba_was_told(cache, monkeypatch, tmp_path):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "elsewhere"))
    compiler.load(text_of(total(volume, 7)))
    assert list(cache.glob("__pycache__/*.nbi")) and not (tmp_path / "elsewhere").exists()


def test_two_processes_may_build_the_same_module_at_once(cache):
    script = ("import sys; from cryptoalgo.features.compiler import *; from cryptoalgo.features.expressions import *;"
              "x = lag(source('close'), 3); print(load(module_source([x], [3])).digest)")
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {p.communicate()[0].strip() for p in both}
    assert len(answers) == 1 and all(p.returncode == 0 for p in both)
    assert len(list(cache.glob("*.py"))) == 1 and not list(cache.glob("*.tmp"))


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRYPTOALGO_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(OutsideError, match="CRYPTOALGO_CACHE_DIR"):
        compiler.load(text_of(total(volume, 6)))


def test_two_kernels_of_one_name_are_refused():
    @kernels.kernel
    def rank_percentile(F, a, w):
        return F[a]

    with pytest.raises(InputError, match="two functions of that name"):
        text_of(scan(close, 5, rank_percentile), scan(close, 6, kernels.rank_percentile))


def test_longer_bars_are_cut_on_the_absolute_grid():
    X = market()
    for first in (0, 1, 2, 5):
        got = run(compiler.load(text_of(every(3, total(volume, 1)))), 1, X, first)[:, 0]
        for t in range(6, 60):
            last = t - (first + t + 1) % 3  # row of the last close of a long bar
            assert got[t] == np.float32(X[4, last - 2] + X[4, last - 1] + X[4, last])

"""Kept results: whole or not at all, found sound or made again, by two processes at once."""

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryptoalgo.workbench.cache import StageCache


@dataclasses.dataclass(frozen=True)
class Result:
    frame: pd.DataFrame
    facts: dict


def made(number: int) -> Result:
    "A result that its number decides."
    return Result(pd.DataFrame({"x": np.arange(2_000.0) * number}), {"number": number})


def hammer(root: str, worker: int) -> int:
    "Keep and fetch the same few results again and again; counts those that came back wrong."
    cache, wrong = StageCache(Path(root)), 0
    for turn in range(40):
        number = (turn + worker) % 3
        if turn % 4 == 0:
            cache.keep("stage", f"{number}" * 64, made(number))
        got = cache.kept("stage", f"{number}" * 64, Result, lambda number=number: made(number))
        wrong += got.facts != {"number": number} or not got.frame.equals(made(number).frame)
    return wrong


def test_two_processes_may_build_the_same_at_once(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(hammer, [str(tmp_path)] * 2, range(2))) == [0, 0]
    left = {p.name for p in (tmp_path / "stage").iterdir()}
    assert left == {"0" * 24, "1" * 24, "2" * 24}  # and nothing half done


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "frame.parquet").write_bytes(b"no parquet"),
    lambda folder: (folder / "facts.json").unlink(),
    lambda folder: (folder / "_files.json").write_text("{"),
    lambda folder: (folder / "more.txt").write_text("a file that nobody kept"),
])
def test_a_damaged_result_is_made_again(tmp_path, damage):
    cache, count = StageCache(tmp_path), []

    def compute():
        count.append(1)
        return made(1)

    cache.kept("stage", "a" * 64, Result, compute)
    damage(cache.folder("stage", "a" * 64))
    assert cache.kept("stage", "a" * 64, Result, compute).facts == {"number": 1} and len(count) == 2
    cache.kept("stage", "a" * 64, Result, compute)
    assert len(count) == 2


def test_what_cannot_be_computed_is_not_kept(tmp_path):
    cache = StageCache(tmp_path)
    with pytest.raises(ZeroDivisionError):
        cache.kept("stage", "a" * 64, Result, lambda: 1 / 0)
    assert cache.find("stage", "a" * 64) is None

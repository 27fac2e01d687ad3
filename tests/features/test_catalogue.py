"""No name of the lists is lost, and every feature says what it is."""

import os
import re
from pathlib import Path

import pytest

from cryptoalgo.core.errors import InputError
from cryptoalgo.features.catalogue import LISTS, catalogue, expanded, written
from cryptoalgo.features.registry import REGISTRY, Registry

TABLE = catalogue()
WORDS = {"available_time", "macd_hist_2x"}  # prose between the names
NAME = re.compile(r"(?:\{[\w,]+\}|[a-z])[\w×]*(?:\{[\w,]+\}[\w×]*)*")


def sections() -> dict[str, str]:
    "Text of the lists, by letter."
    default = Path(__file__).resolve().parents[3] / "shared" / "reference" / "statistics.json"
    file = Path(os.environ.get("CRYPTOALGO_REFERENCE", default)).with_name("features.md")
    if not file.exists():
        if os.environ.get("CRYPTOALGO_CI"):
            pytest.fail(f"{file.name} is needed beside the reference numbers")
        pytest.skip("the reference lists are not here")
    parts = re.split(r"^## ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part[0]: part.partition("\n")[2] for part in parts if re.match(r"[A-D]\. ", part)}


def names_in(text: str) -> list[str]:
    "Everything in a list that is written like a name: with an underscore, braces or a product sign."
    found = [m[0] for m in NAME.finditer(text) if re.search(r"[_{×]", m[0])]
    return [name for word in found for name in expanded(word) if name not in WORDS and not name.isdigit()]


@pytest.mark.parametrize("letter", LISTS)
def test_every_name_of_a_list_is_mapped(letter):
    names = names_in(sections()[letter])
    known = set(LISTS[letter])
    lost = [n for n in names if n not in known and not any(k.startswith(f"{n}_") for k in known)]
    assert not lost and len(names) > 8


def test_the_lists_are_as_long_as_they_say():
    assert len(LISTS["A"]) == 37 and len(LISTS["C"]) == 83


def test_every_name_is_mapped_to_a_feature_that_exists():
    assert {ours for names in LISTS.values() for ours in names.values()} <= set(TABLE.index)


def test_a_name_that_is_taken_out_of_the_table_is_missed():
    known = set(LISTS["A"]) - {"parkinson_vol_24h"}
    assert [n for n in names_in(sections()["A"]) if n not in known] == ["parkinson_vol_24h"]


def test_the_table_says_what_each_feature_is():
    assert set(TABLE.index) == {f.name for tf in ("15m", "1h", "4h") for f in REGISTRY.select(timeframe=tf)}
    row = TABLE.loc["ma_distance_24h"]
    assert row.drop("meaning").to_dict() == {"group": "trend", "inputs": "close", "15m": "95", "1h": "23", "4h": "5",
                                             "formula": "close / mean(close, hours(n)) - 1.0", "lists": "A: ma_distance_24h"}
    assert TABLE.at["return_1h", "4h"] == "–" and (TABLE[["group", "formula", "meaning"]] != "").all().all()
    assert TABLE["lists"].str.contains("C: rsi_4x").sum() == 1


def test_words_with_braces_and_formulas_of_several_lines():
    assert expanded("a_{1,2}_{x,y}") == ["a_1_x", "a_1_y", "a_2_x", "a_2_y"] and expanded("a") == ["a"]
    assert written(REGISTRY.function("range_position_20")) == (
        "bottom = lowest(low, 20); ratio(close - bottom, highest(high, 20) - bottom, at_zero=0.5)")


def test_an_empty_registry_and_an_unknown_name_are_refused():
    with pytest.raises(InputError, match="none selected"):
        catalogue(Registry())
    with pytest.raises(InputError, match="feature 'rsi_15': there is no such feature.*rsi_14"):
        REGISTRY.function("rsi_15")

"""Unmeasured has failed, gates cap, and the words say what the numbers say."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cryptoalgo.core.errors import GateError, InputError
from cryptoalgo.core.evidence import Check, CheckSpec, GateSpec, Tier, evidence_from_dict, judge, verdict_paragraph

quick = settings(max_examples=150, deadline=None)


def check(weight=1.0, comparison=">", threshold=0.0, **more) -> CheckSpec:
    return CheckSpec(text="the number", comparison=comparison, threshold=threshold, weight=weight, **more)


def gate(cap="REJECT", comparison=">", threshold=0.0) -> GateSpec:
    return GateSpec(text="the gate's number", comparison=comparison, threshold=threshold, cap=cap)


values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
rules = st.tuples(st.sampled_from([">", ">=", "<", "<="]), st.floats(-10, 10), st.integers(1, 30))


@st.composite
def cases(draw):
    checks = {f"c{k}": check(w, c, t) for k, (c, t, w) in enumerate(draw(st.lists(rules, min_size=1, max_size=12)))}
    caps = draw(st.lists(st.tuples(st.sampled_from(list(Tier)[:3]), rules), max_size=4))
    gates = {f"g{k}": gate(cap, c, t) for k, (cap, (c, t, _)) in enumerate(caps)}
    names = draw(st.sets(st.sampled_from([*checks, *gates])))
    return {name: draw(values) for name in sorted(names)}, checks, gates


@pytest.mark.parametrize(
    "passed, tier, scale",
    [(0, "REJECT", 0.0), (44, "REJECT", 0.0), (45, "SHADOW", 0.2), (64, "SHADOW", 0.2), (65, "PILOT", 0.5),
     (79, "PILOT", 0.5), (80, "FULL", 1.0), (100, "FULL", 1.0)],
)  # fmt: skip
def test_floors_of_the_tiers(passed, tier, scale):
    evidence = judge({f"c{k}": 1.0 for k in range(passed)}, {f"c{k}": check(0.1) for k in range(100)}, {})
    assert (evidence.score, evidence.tier, evidence.tier.scale) == (passed, tier, scale)


@quick
@given(cases())
def test_score_is_the_share_of_all_weight_and_unmeasured_fails(case):
    given_values, checks, gates = case
    evidence = judge(given_values, checks, gates)

    def holds(name, spec):
        v = given_values.get(name)
        if v is None or math.isnan(v):
            return False
        t = spec.threshold
        return {">": v > t, ">=": v >= t, "<": v < t, "<=": v <= t}[spec.comparison]

    won = sum(spec.weight for name, spec in checks.items() if holds(name, spec))
    assert evidence.score == pytest.approx(100 * won / sum(c.weight for c in checks.values()))
    ceilings = [evidence.uncapped, *(g.cap for name, g in gates.items() if not holds(name, g))]
    assert evidence.tier == min(ceilings, key=list(Tier).index)
    assert len(evidence.reasons) == sum(not holds(n, s) for n, s in [*checks.items(), *gates.items()])
    assert evidence.reasons == [r for r in evidence.reasons if "must be" in r]


@quick
@given(cases())
def test_a_file_gives_back_the_same_evidence_and_the_same_bytes(case):
    evidence = judge(*case)
    text = json.dumps(evidence.to_dict(), allow_nan=False)
    again = evidence_from_dict(json.loads(text))
    assert again == evidence and json.dumps(again.to_dict(), allow_nan=False) == text


@quick
@given(cases())
def test_doing_the_least_that_is_asked_reaches_the_next_tier(case):
    given_values, checks, gates = case
    checks = {k: c.model_copy(update={"text": k}) for k, c in checks.items()}
    gates = {k: g.model_copy(update={"text": k}) for k, g in gates.items()}
    evidence = judge(given_values, checks, gates)
    asked = verdict_paragraph(evidence, "BTC").partition("would have to be true: ")[2]
    if evidence.tier == Tier.FULL:
        assert not asked
        return
    mended = dict(given_values)
    for name in [part.split()[0] for part in asked.split("; ")]:
        mended[name] = math.inf if {**checks, **gates}[name].comparison[0] == ">" else -math.inf
    after = judge(mended, checks, gates).tier
    assert after.at_least(evidence.tier) and after != evidence.tier


def test_a_gate_is_not_bought_off_and_the_lowest_cap_holds():
    checks, gates = {"c": check()}, {"holdout": gate("REJECT"), "trades": gate("PILOT", ">=", 100)}
    assert judge({"c": 1, "holdout": 1, "trades": 100}, checks, gates).tier == Tier.FULL
    assert judge({"c": 1, "holdout": 1, "trades": 99}, checks, gates).tier == Tier.PILOT
    assert judge({"c": 1, "holdout": 0, "trades": 99}, checks, gates).tier == Tier.REJECT
    assert judge({"c": 1, "trades": 100}, checks, gates).tier == Tier.REJECT  # a gate that was not measured says no


def test_one_value_may_serve_a_check_and_a_gate():
    evidence = judge({"x": 1.0}, {"x": check()}, {"x": gate(threshold=2.0)})
    assert evidence.score == 100 and evidence.tier == Tier.REJECT


def test_the_words_say_what_was_missed_and_by_how_much():
    def words(value, **spec):
        return Check(name="x", value=value, **dict(check(**spec))).words

    assert words(-0.25) == "the number must be above 0 but is -0.25, missed by 0.25"
    assert words(0.0) == "the number must be above 0 but is 0, exactly at the limit"
    assert words(0.36, comparison="<", threshold=0.3, format=".1%").endswith("below 30.0% but is 36.0%, missed by 6.0%")
    assert words(0.7499999, comparison=">=", threshold=0.75, format=".2f").endswith("missed by 1.0e-07")
    assert words(float("nan")) == words(None) == "the number must be above 0, but was not measured"
    assert words(3.0) == "the number must be above 0 and is 3"


def test_the_paragraph_names_tier_failures_and_the_way_up():
    checks = {
        "a": CheckSpec(text="the ratio", comparison=">", threshold=0, weight=60),
        "b": CheckSpec(text="the spread", comparison="<", threshold=1, weight=40),
    }
    gates = {"g": GateSpec(text="the holdout return", comparison=">", threshold=0, cap="REJECT", format=".1%")}
    text = verdict_paragraph(judge({"a": -0.5, "b": 0.5, "g": -0.031}, checks, gates), "XRP")
    assert text == (
        "XRP: REJECT, 40.0 of 100 points, 0% of full size."
        " Gates that said no, 1 of 1: the holdout return must be above 0.0% but is -3.1%, missed by 3.1%."
        " Failed 1 of 2 checks: the ratio must be above 0 but is -0.5, missed by 0.5."
        " For SHADOW the least that would have to be true: the holdout return must be above 0.0%;"
        " the ratio must be above 0 (+60 points)."
    )
    assert verdict_paragraph(judge({"a": 1, "b": 0, "g": 1}, checks, gates), "BTC") == (
        "BTC: FULL, 100.0 of 100 points, 100% of full size. All 2 checks and every gate passed."
    )


def test_a_score_is_never_shown_as_a_floor_it_did_not_reach():
    checks = {"a": check(79.99), "b": check(20.01)}
    assert "PILOT, 79.9 of 100" in verdict_paragraph(judge({"a": 1.0}, checks, {}), "BTC")


def test_misspelt_values_and_empty_checks_are_refused():
    with pytest.raises(InputError, match=r"'sharp'.*did you mean 'sharpe'"):
        judge({"sharp": 1.0}, {"sharpe": check()}, {})
    with pytest.raises(InputError, match="no checks"):
        judge({}, {}, {"g": gate()})


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 0}, {"weight": -1}, {"threshold": math.nan}, {"threshold": math.inf}, {"comparison": "=="},
     {"format": "zz"}, {"unknown": 1}, {"text": ""}],
)  # fmt: skip
def test_specs_are_strict_and_frozen(wrong):
    fields = {"text": "x", "comparison": ">", "threshold": 0, "weight": 1}
    spec = CheckSpec(**fields)
    with pytest.raises(ValidationError):
        CheckSpec(**fields | wrong)
    with pytest.raises(ValidationError):
        spec.weight = 2


def test_a_file_that_was_edited_or_cut_is_refused():
    stored = judge({"c": 0.0}, {"c": check()}, {}).to_dict()
    for edit in ({"tier": "FULL"}, {"score": 99.0}, {"checks": [stored["checks"][0] | {"value": 1.0}]}):
        with pytest.raises(GateError, match="was edited"):
            evidence_from_dict(stored | edit)
    for cut in ({"checks": []}, {"checks": [{}]}, {"gates": None}):
        with pytest.raises(GateError, match="cannot be read"):
            evidence_from_dict(stored | cut)

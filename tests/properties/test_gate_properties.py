"""What holds of every gate: it says exactly what would open it, and people have the last word."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from past_flights import a_past, a_run

from lab.flights.gate import Override, decide, explain, with_waivers
from lab.flights.regression import Waiver, judge

TESTS = ("build-x b", "test-a s", "test-a t", "test-b s", "test-c s")
HERE, REVISION = 50, "f" * 40
results = st.dictionaries(
    st.sampled_from(TESTS), st.sampled_from(["pass", "fail", "fail", "broken", "starved"]), min_size=1
)
flights = st.dictionaries(st.integers(1, 49), results, max_size=3)
unmet = st.sampled_from([(), (), (), ("arm64: 0 of 1 jobs came to a verdict, 50% are demanded",)])


def an_override(number: int, kind: str, revision: str) -> Override:
    return Override(id=number, kind=kind, actor="ian", reason="because", revision=revision)


overrides = st.lists(
    st.builds(
        an_override, st.integers(1, 9), st.sampled_from(["hold", "force"]), st.sampled_from([REVISION, "e" * 40])
    ),
    max_size=2,
)


@given(mine=results, same=flights, baseline=flights, unmet=unmet, overrides=overrides)
def test_explain_names_exactly_what_opens_the_gate(
    mine: dict[str, str], same: dict[int, dict[str, str]], baseline: dict[int, dict[str, str]],
    unmet: tuple[str, ...], overrides: list[Override],
) -> None:  # fmt: skip
    run = a_run(HERE, mine)
    past = a_past(HERE, mine, same={flight + 100: one for flight, one in same.items()}, baseline=baseline)
    told = explain(judge(run, past), unmet, overrides, REVISION)

    def opens(waived: frozenset[Waiver]) -> bool:
        """Judged anew with these waivers, and as a verdict that was given before them: the same."""
        again = decide(judge(run, past, waived=waived), unmet, overrides, REVISION)
        later = decide(with_waivers(judge(run, past), waived), unmet, overrides, REVISION)
        assert again == later
        return again.advance

    if told.decision.advance:
        assert (told.waive, told.besides) == ((), ())
        assert opens(frozenset())
        return
    assert told.waive or told.besides
    assert opens(frozenset(told.waive)) == (not told.besides)
    for size in range(len(told.waive)):
        for some in combinations(told.waive, size):
            assert not opens(frozenset(some))


@given(mine=results, baseline=flights, overrides=overrides)
def test_a_hold_of_the_revision_vetoes_and_a_force_of_another_does_nothing(
    mine: dict[str, str], baseline: dict[int, dict[str, str]], overrides: list[Override]
) -> None:
    verdict = judge(a_run(HERE, mine), a_past(HERE, mine, baseline=baseline))
    decision = decide(verdict, (), overrides, REVISION)
    mine_ = [one.kind for one in overrides if one.revision == REVISION]
    if "hold" in mine_:
        assert not decision.advance
    elif "force" in mine_:
        assert decision.advance
    else:
        assert decision == decide(verdict, (), (), REVISION)

"""How far ahead the plan looks by itself, and which kinds of spans its legend explains."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lab.flights.model import Window
from lab.hosts.model import Host
from lab.services.show_plan import HostPlan, PlanView, Span
from web.plan_views import choose_ahead, gantt

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def span(kind: str, start_h: float, end_h: float | None) -> Span:
    def moment(hours: float) -> Window:
        at = NOW + timedelta(hours=hours)
        return Window(p50=at, p90=at)

    return Span(kind=kind, start=moment(start_h), end=None if end_h is None else moment(end_h))


def view(*spans: Span) -> PlanView:
    return PlanView(
        now=NOW, hosts=(HostPlan(host=Host(name="h1", arch="x86_64"), spans=spans),), waiting=0, kinds={}, tenants=()
    )


@pytest.mark.parametrize(
    ("spans", "least", "most"),
    [
        ((), 1, 1),
        ((span("job", -1, 0.2),), 0.2, 0.5),
        ((span("booking", 5, 7),), 5, 8),
        ((span("lease", -3, 5), span("booking", 30, 40)), 5, 8),
        ((span("job", 0, 3), span("lease", -1, 0.5)), 3, 4),
        ((span("blockage", -1, None),), 1, 1),
    ],
)
def test_the_plan_looks_as_far_as_something_is_expected_or_changes(
    spans: tuple[Span, ...], least: float, most: float
) -> None:
    assert least <= choose_ahead(view(*spans)) <= most


def test_the_legend_explains_what_is_in_the_picture_and_no_more() -> None:
    shown = gantt(view(span("job", -0.1, 0.5), span("booking", 100, 101), span("lease", -200, -199)), hours=1)
    assert shown.kinds == ("job",)

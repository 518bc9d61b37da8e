"""When jobs are expected: never two on one host at one time, never over a promise, and less certain the later."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from strategies import labs, queues

from lab.hosts.durations import Estimate
from lab.hosts.model import Host, HostState
from lab.hosts.planner import Request, RoleRequest
from lab.hosts.projection import Block, When, project
from lab.hosts.reasons import reasons
from lab.hosts.slots import Limit

NOW = 1_000_000.0


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Host], list[Request], dict[str, When], list[Block]]:
    lab = draw(labs(high=5))
    requests = []
    for request in draw(queues(high=6)):
        p50 = draw(st.floats(1, 500))
        requests.append(replace(request, estimate=Estimate(p50_s=p50, p90_s=p50 * draw(st.floats(1, 4)))))
    back = {}
    for host in lab:
        if host.state is not HostState.FREE:
            p50 = NOW + draw(st.floats(-50, 500))
            back[host.name] = When(p50=p50, p90=p50 + draw(st.floats(0, 500)))
    names = [host.name for host in lab]
    blocks = []
    for name in draw(st.lists(st.sampled_from(names), max_size=3)) if names else []:
        start = NOW + draw(st.floats(-100, 1000))
        end = draw(st.none() | st.floats(1, 500).map(lambda length, start=start: start + length))
        blocks.append(Block(host=name, start=start, end=end, kind="blockage", why="x"))
    return lab, requests, back, blocks


@given(problems())
def test_what_is_expected_could_really_be_done(
    problem: tuple[list[Host], list[Request], dict[str, When], list[Block]],
) -> None:
    lab, requests, back, blocks = problem
    found = project(NOW, requests, lab, back=back, blocks=blocks)
    by_name, by_id = {host.name: host for host in lab}, {request.id: request for request in requests}
    uses: dict[str, list[tuple[float, float]]] = {}
    for one in found.values():
        request = by_id[one.request]
        assert one.start.p50 >= NOW
        assert one.start.p50 <= one.start.p90
        assert one.start.p50 <= one.end.p50 <= one.end.p90
        assert set(one.hosts) == {role.role for role in request.roles}
        assert len(set(one.hosts.values())) == len(one.hosts)
        for role in request.roles:
            host = by_name[one.hosts[role.role]]
            assert host.usable()
            assert role.requirement.matches(host)
            assert one.start.p50 >= back.get(host.name, When(p50=NOW, p90=NOW)).p50
            uses.setdefault(host.name, []).append((one.start.p50, one.end.p50))
            for block in blocks:
                if block.host == host.name and block.start >= one.start.p50:
                    assert one.start.p50 + request.estimate.p90_s <= block.start
                elif block.host == host.name:
                    assert block.end is not None
                    assert block.end <= one.start.p50
    for spans in uses.values():
        for (_start, end), (start, _end) in pairwise(sorted(spans)):
            assert end <= start + 1e-6


@given(problems())
def test_everybody_is_told_a_reason_in_one_line(
    problem: tuple[list[Host], list[Request], dict[str, When], list[Block]],
) -> None:
    lab, requests, back, blocks = problem
    found = project(NOW, requests, lab, back=back, blocks=blocks)
    told = reasons(NOW, requests, lab, possible=found.keys(), for_place={}, blocks=blocks)
    assert told.keys() == {request.id for request in requests}
    assert all(reason.text and "\n" not in reason.text for reason in told.values())


@given(st.integers(1, 30), st.integers(1, 4))
def test_no_more_hosts_run_at_once_than_may(count: int, running: int) -> None:
    lab = [Host(name=f"h{number}", arch="x86_64") for number in range(6)]
    limit = Limit(hosts=frozenset(host.name for host in lab), running=running)
    requests = [_request(number) for number in range(count)]
    found = project(NOW, requests, lab, back={}, limit=limit).values()
    moments = [one.start.p50 for one in found]
    assert len(moments) == count
    for moment in moments:
        assert sum(one.start.p50 <= moment < one.end.p50 for one in found) <= running


def test_what_comes_later_is_known_less_exactly() -> None:
    found = project(NOW, [_request(number) for number in range(9)], [Host(name="h", arch="x86_64")], back={})
    spreads = [found[f"{number}.j"].start.p90 - found[f"{number}.j"].start.p50 for number in range(9)]
    assert spreads == sorted(spreads)
    assert spreads[0] == 0
    assert round(spreads[4] / spreads[1], 3) == 2.0, "variances add"


def _request(number: int) -> Request:
    roles = (RoleRequest(role="host"),)
    return Request(id=f"{number}.j", order=number, roles=roles, estimate=Estimate(p50_s=100, p90_s=150))

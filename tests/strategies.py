"""Hypothesis strategies for the ground floor."""

from __future__ import annotations

from hypothesis import strategies as st

from lab.flights.reuse import HOST_INPUTS
from lab.flights.status import JobStatus, StepStatus
from lab.hosts.model import Health, Host, HostState, Requirement
from lab.hosts.request import Request, RoleRequest

FLAGS = ("hvm", "iommu", "equiv-a", "equiv-b", "slow")

job_statuses = st.sampled_from(JobStatus)
final_statuses = st.sampled_from([status for status in JobStatus if status.final])
step_statuses = st.sampled_from(StepStatus)
ended_steps = st.sampled_from([status for status in StepStatus if status.final])

_words = st.text("abcxyz019._-", max_size=6)
runvars = st.dictionaries(
    st.sampled_from(
        [*HOST_INPUTS, *(f"{role}_{name}" for role in ("host", "a", "b") for name in HOST_INPUTS), "fault", "note"]
    ),
    _words,
)

_atoms = st.one_of(
    st.sampled_from(["hvm", "iommu", "slow", "equiv_a", "nothing", "True", "False"]),
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["cores", "arch", "name", "missing"]),
        st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
        st.sampled_from(['"x86_64"', '"h1"', "4", "2.5", "True"]),
    ),
)
requirement_texts = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
    ),
    max_leaves=6,
)
"""Texts of the requirement language."""


@st.composite
def hosts(draw: st.DrawFn, name: str = "h1", *, ready: bool = True) -> Host:
    """One host; with `ready` it may be set up for a flight already."""
    keyed = ready and draw(st.booleans())
    return Host(
        name=name,
        arch=draw(st.sampled_from(["x86_64", "x86_64", "arm64"])),
        flags=frozenset(draw(st.sets(st.sampled_from(FLAGS)))),
        properties=draw(st.dictionaries(st.just("cores"), st.sampled_from([1, 4, 8]))),
        state=draw(st.sampled_from([HostState.FREE, HostState.FREE, HostState.FREE, *HostState])),
        health=draw(st.sampled_from([Health.GOOD, Health.GOOD, Health.GOOD, *Health])),
        setup_key=draw(st.sampled_from(["k1", "k2"])) if keyed else None,
        setup_flight=draw(st.sampled_from([1, 2])) if keyed else None,
    )


@st.composite
def labs(draw: st.DrawFn, *, low: int = 0, high: int = 5, ready: bool = True) -> list[Host]:
    """The hosts of a lab."""
    return [draw(hosts(name=f"h{number}", ready=ready)) for number in range(1, draw(st.integers(low, high)) + 1)]


def _role(number: int) -> st.SearchStrategy[RoleRequest]:
    return st.builds(
        RoleRequest,
        role=st.just(f"role{number}"),
        requirement=st.sampled_from(["", "hvm", 'arch == "x86_64"', "iommu and hvm", "not slow", "cores >= 4"]).map(
            Requirement
        ),
        equivalent=st.sampled_from([None, None, "same", "other"]),
        setup_key=st.sampled_from([None, "k1", "k2"]),
    )


@st.composite
def requests(draw: st.DrawFn, id_: str = "1.job", order: int | None = None) -> Request:
    """One waiting job."""
    return Request(
        id=id_,
        order=draw(st.integers(0, 3)) if order is None else order,
        roles=tuple(draw(_role(number)) for number in range(draw(st.integers(1, 3)))),
        flight=draw(st.sampled_from([None, 1, 2])),
        priority=draw(st.sampled_from([0, 0, 1])),
        avoid=frozenset(draw(st.sets(st.sampled_from(["h1", "h2"])))),
    )


@st.composite
def queues(draw: st.DrawFn, *, low: int = 0, high: int = 5) -> list[Request]:
    """The waiting jobs of a lab."""
    return [draw(requests(id_=f"{number}.job")) for number in range(draw(st.integers(low, high)))]

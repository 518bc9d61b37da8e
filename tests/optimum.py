"""The least makespan of a small scenario, by OR-Tools' CP-SAT solver: what the planner is held against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ortools.sat.python import cp_model

from lab.hosts.model import Host
from lab.hosts.simulation import Scenario, SimulatedJob

SECONDS = 20.0
"""The solver gives up after so long."""


def least_makespan(scenario: Scenario) -> float | None:
    """The optimum (durations in whole seconds, all jobs there at the start); None when it was not proved in time."""
    model = cp_model.CpModel()
    horizon = sum(int(job.seconds) for job in scenario.jobs)
    end = model.new_int_var(0, horizon, "end")
    on_host: dict[str, list[cp_model.IntervalVar]] = defaultdict(list)
    for number, job in enumerate(scenario.jobs):
        start = model.new_int_var(0, horizon, f"start {number}")
        model.add(start + int(job.seconds) <= end)
        for hosts in _taken(model, scenario.hosts, job):
            for name, taken in hosts.items():
                length = int(job.seconds)
                on_host[name].append(
                    model.new_optional_interval_var(start, length, start + length, taken, f"{number} on {name}")
                )
    for intervals in on_host.values():
        model.add_no_overlap(intervals)
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = SECONDS
    solver.parameters.num_workers = 2
    solver.parameters.random_seed = 1
    status = solver.solve(model)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.UNKNOWN), solver.status_name(status)
    return solver.objective_value if status == cp_model.OPTIMAL else None


def _taken(model: cp_model.CpModel, hosts: Sequence[Host], job: SimulatedJob) -> list[dict[str, cp_model.IntVar]]:
    """For each role of a job, whether it is on each host that could serve; alike where that is asked for."""
    roles = job.request.roles
    found = []
    for role in roles:
        able = [host for host in hosts if role.requirement.matches(host)]
        found.append({host.name: model.new_bool_var(f"{job.request.id} {role.role} {host.name}") for host in able})
        model.add_exactly_one(found[-1].values())
    for host in hosts:
        model.add_at_most_one(chosen[host.name] for chosen in found if host.name in chosen)
    if len(roles) > 1 and roles[0].equivalent:
        flags = sorted({flag for host in hosts for flag in host.flags if flag.startswith("equiv-")})
        group = {flag: model.new_bool_var(f"{job.request.id} {flag}") for flag in flags}
        model.add_exactly_one(group.values())
        for chosen in found:
            for host in hosts:
                if host.name in chosen:
                    model.add_bool_or(group[flag] for flag in flags if flag in host.flags).only_enforce_if(
                        chosen[host.name]
                    )
    return found

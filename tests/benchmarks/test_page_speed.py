"""How long the server takes for each page, and for the same as JSON, with a million steps in the database.

pytest tests/benchmarks/test_page_speed.py -m benchmark -s
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from databases import upgrade
from factories import make_lab
from past import HOSTS, Past, fill

from lab.db.session import make_engine
from lab.hosts.model import Host
from web.app import create_app, settle_memory

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

STEPS = int(os.environ.get("FLIGHTLINE_BENCHMARK_STEPS", "1000000"))
MOST_MS = 100.0
TIMES = 9
JOB = "test-amd64-amd64-xl-qcow2"
PAGES = (
    "/",
    "/?branch=libvirt",
    "/flights/{last}",
    "/flights/{last}/jobs/" + JOB,
    "/compare/{before}/{last}",
    "/api/v1/compare/{before}/{last}",
    "/history",
    "/history/" + JOB,
    "/history/" + JOB + "?branch=xen-unstable&before={before}",
    "/history/" + JOB + "/guest-localmigrate?branch=xen-unstable",
    "/history/test-amd64-amd64-migrate-pair",
    "/api/v1/history/" + JOB,
    "/hosts",
    "/hosts/albana0",
    "/queue",
    "/plan",
    "/bisections",
    "/flights/{last}/report",
    "/regressions",
    "/regressions?all=1&branch=xen-unstable",
    "/branches",
    "/branches/xen-unstable",
    "/gates/{last}",
    "/badge/xen-unstable.svg",
    "/api/v1/branches",
    "/api/v1/gates/{last}",
)


async def measure(app: object, paths: list[str]) -> dict[str, list[float]]:
    """Milliseconds for each address, from question to answer, in one process without a network."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
    taken: dict[str, list[float]] = {path: [] for path in paths}
    async with httpx.AsyncClient(transport=transport, base_url="http://lab", timeout=120) as client:
        for _ in range(TIMES + 1):
            for path in paths:
                began = time.perf_counter()
                answer = await client.get(path)
                taken[path].append(1000 * (time.perf_counter() - began))
                assert answer.status_code == 200, (path, answer.text[:500])
    return {path: times[1:] for path, times in taken.items()}  # the first one compiled templates and statements


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_page_answers_soon(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if database == "sqlite":
        url = f"sqlite:///{tmp_path / 'lab.db'}"
    else:
        make: Callable[[str], str] = request.getfixturevalue("new_postgres_database")
        url = make("pages")
    upgrade(url)
    engine = make_engine(url)
    past = Past(STEPS, datetime.now(UTC))
    began = time.monotonic()
    fill(engine, past)
    engine.dispose()
    print(f"\n{database}: {past.made} steps of {past.last} flights written in {time.monotonic() - began:.0f} s")
    hosts = [Host(name=name, arch=arch, flags=frozenset(flags)) for name, arch, flags in HOSTS]
    lab = make_lab(url, tmp_path / "home", hosts)
    paths = [page.format(last=past.last, before=past.last - 24) for page in PAGES]
    app = create_app(lab)
    settle_memory()  # as the server does
    taken = asyncio.run(measure(app, paths))
    gc.unfreeze()
    lab.sessions.kw["bind"].dispose()
    print(f"{'page':64} {'best':>8} {'median':>8} {'worst':>8}  ms, load {os.getloadavg()[0]:.1f}")
    for path, times in taken.items():
        print(f"{path:64} {min(times):8.1f} {statistics.median(times):8.1f} {max(times):8.1f}")
    slow = {path: round(min(times), 1) for path, times in taken.items() if min(times) > MOST_MS}
    assert not slow, f"more than {MOST_MS:.0f} ms even at best: {slow}"

"""Real servers: PostgreSQL and Redis that the tests start themselves, and databases on them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import upgrade
from factories import a_host, make_lab, trial_catalogue
from gate_lab import make_world  # noqa: F401 - a fixture
from servers import PostgresServer, RedisServer, find_postgres, free_port
from sqlalchemy import Engine, text

from lab.context import Lab
from lab.db.base import Base
from lab.db.session import make_engine
from lab.hosts.model import Host

WITHOUT = os.environ.get("FLIGHTLINE_TEST_WITHOUT", "").split(",")
"""Servers a developer does without (postgresql, redis): their tests are skipped instead of failing."""


def need(what: str, path: str | None) -> str:
    if path is not None:
        return path
    if what in WITHOUT:
        pytest.skip(f"without {what}, as FLIGHTLINE_TEST_WITHOUT asks")
    pytest.fail(f"{what} is not installed: apt-get install {what} (or FLIGHTLINE_TEST_WITHOUT={what})")


@pytest.fixture(autouse=True)
def _catalogue() -> Iterator[None]:
    with trial_catalogue():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of our own; the URL of it without a database name."""
    server = PostgresServer(need("postgresql", find_postgres()))
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def new_postgres_database(postgres: str) -> Callable[[str], str]:
    """Make an empty database; returns its URL."""

    def make(name: str) -> str:
        engine = make_engine(f"{postgres}/postgres")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return f"{postgres}/{name}"

    return make


@pytest.fixture(scope="session")
def postgres_database(new_postgres_database: Callable[[str], str]) -> str:
    """A migrated database that tests share; each leaves it empty."""
    url = new_postgres_database("lab")
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "lab.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of this version's schema."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "lab.db")
        yield f"sqlite:///{tmp_path / 'lab.db'}"
        return
    url = request.getfixturevalue("postgres_database")
    yield url
    engine = make_engine(url)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())  # quicker than TRUNCATE, which makes new files
        connection.execute(text("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"))
    engine.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def new_lab(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Makes a lab of fake hosts on the database of this test: `new_lab(host, …, **settings)`."""
    made: list[Lab] = []

    def make(*hosts: Host, **settings: Any) -> Lab:
        lab = make_lab(database_url, tmp_path / "home", hosts or (a_host("h1"), a_host("h2")), **settings)
        made.append(lab)
        return lab

    yield make
    for lab in made:
        lab.sessions.kw["bind"].dispose()


@pytest.fixture
def lab(new_lab: Callable[..., Lab]) -> Lab:
    """A lab with the fake hosts h1 and h2."""
    return new_lab()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis server of our own."""
    server = RedisServer(need("redis-server", shutil.which("redis-server")))
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A RabbitMQ server of our own, with an epmd of its own; skipped where it is not installed: it is large."""
    server = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on PATH insists on being root or its own user
    if not server.exists():
        pytest.skip("rabbitmq-server is not installed")
    folder = Path(tempfile.mkdtemp(prefix="flightline-rabbit-"))
    port, epmd = free_port(), free_port()
    (folder / "plugins").write_text("[].")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd),
        "RABBITMQ_NODENAME": f"flightline{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    with (folder / "output").open("wb") as output:
        running = subprocess.Popen(
            [str(server)],
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while b"completed" not in (folder / "output").read_bytes():
            assert running.poll() is None, (folder / "output").read_text()[-2000:]
            assert time.monotonic() < deadline, "rabbitmq-server does not start"
            time.sleep(0.1)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(30)
        subprocess.run(["epmd", "-port", str(epmd), "-kill"], capture_output=True, check=False, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)

"""The tables. Statuses are stored as their words; only `lab.db` reads or writes them."""

from __future__ import annotations

from sqlalchemy import JSON, CheckConstraint, Double, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column, relationship

from lab.db.base import Base, json_object, maybe_moment, moment, short, text


class FlightRow(Base):
    """One flight."""

    __tablename__ = "flights"

    id: Mapped[int] = mapped_column(primary_key=True)
    branch: Mapped[short] = mapped_column(index=True)
    intended: Mapped[short]
    blessing: Mapped[short] = mapped_column(index=True)
    started: Mapped[moment]
    finished: Mapped[maybe_moment]
    submitter: Mapped[short]
    tenant: Mapped[short] = mapped_column(default="", server_default="")
    note: Mapped[text]

    jobs: Mapped[list[JobRow]] = relationship(order_by="JobRow.position", cascade="all, delete-orphan")

    __table_args__ = (
        Index("ix_flights_open", "id", sqlite_where=sql("finished IS NULL"), postgresql_where=sql("finished IS NULL")),
        {"sqlite_autoincrement": True},
    )


class JobRow(Base):
    """One job; `attempt` is the one that holds it while it is active."""

    __tablename__ = "jobs"

    flight: Mapped[int] = mapped_column(ForeignKey("flights.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[short] = mapped_column(primary_key=True)
    position: Mapped[int]
    recipe: Mapped[short]
    status: Mapped[short] = mapped_column(index=True)
    reason: Mapped[text]
    priority: Mapped[int] = mapped_column(default=0)
    queued: Mapped[moment]

    runvars: Mapped[list[RunvarRow]] = relationship(order_by="RunvarRow.name", cascade="all, delete-orphan")
    wait: Mapped[WaitRow | None] = relationship(cascade="all, delete-orphan")
    attempts: Mapped[list[AttemptRow]] = relationship(order_by="AttemptRow.number", cascade="all, delete-orphan")

    __table_args__ = (Index("ix_jobs_flight", "flight", "status"),)


class RunvarRow(Base):
    """One runvar of a job."""

    __tablename__ = "runvars"

    flight: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[short] = mapped_column(primary_key=True)
    name: Mapped[short] = mapped_column(primary_key=True)
    value: Mapped[text]
    synth: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (ForeignKeyConstraint(["flight", "job"], ["jobs.flight", "jobs.name"], ondelete="CASCADE"),)


class AttemptRow(Base):
    """One try at a job. Whoever holds `token` may write it; `until` is when the hold ends unless it is renewed.

    `site` is the one whose workers it is for. `blames` is the host on which it broke, if it broke on one.
    """

    __tablename__ = "attempts"

    id: Mapped[int] = mapped_column(primary_key=True)
    flight: Mapped[int]
    job: Mapped[short]
    number: Mapped[int]
    status: Mapped[short] = mapped_column(index=True)
    token: Mapped[short]
    site: Mapped[short] = mapped_column(default="default")
    worker: Mapped[short] = mapped_column(default="")
    started: Mapped[moment]
    until: Mapped[moment]
    finished: Mapped[maybe_moment] = mapped_column(index=True)
    reason: Mapped[text]
    blames: Mapped[short | None]

    hosts: Mapped[list[AttemptHostRow]] = relationship(order_by="AttemptHostRow.position", cascade="all, delete-orphan")
    steps: Mapped[list[StepRow]] = relationship(order_by="StepRow.stepno", cascade="all, delete-orphan")

    __table_args__ = (
        ForeignKeyConstraint(["flight", "job"], ["jobs.flight", "jobs.name"], ondelete="CASCADE"),
        UniqueConstraint("flight", "job", "number"),
        Index("ix_attempts_history", "job", "flight", "number"),
        Index(
            "ix_attempts_open", "until", sqlite_where=sql("finished IS NULL"), postgresql_where=sql("finished IS NULL")
        ),
        Index("ix_attempts_job", "job", "finished"),
        {"sqlite_autoincrement": True},
    )


class AttemptHostRow(Base):
    """Which host an attempt got in which role, under which fencing token, and whether it was set up already."""

    __tablename__ = "attempt_hosts"

    attempt: Mapped[int] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[short] = mapped_column(primary_key=True)
    position: Mapped[int]
    host: Mapped[short] = mapped_column(ForeignKey("hosts.name"))
    fence: Mapped[int]
    reused: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (Index("ix_attempt_hosts_host", "host", "attempt"),)


class StepRow(Base):
    """One step of an attempt."""

    __tablename__ = "steps"

    attempt: Mapped[int] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True)
    stepno: Mapped[int] = mapped_column(primary_key=True)
    testid: Mapped[short]
    step: Mapped[short]
    status: Mapped[short]
    started: Mapped[moment]
    finished: Mapped[maybe_moment]
    host: Mapped[short | None]
    reason: Mapped[text]
    evidence: Mapped[json_object]
    log: Mapped[text]
    console: Mapped[json_object]

    __table_args__ = (UniqueConstraint("attempt", "testid"),)


class HostRow(Base):
    """One host. `fence` grows with every lease; `present` is False once it is no longer in the lab's file."""

    __tablename__ = "hosts"

    name: Mapped[short] = mapped_column(primary_key=True)
    arch: Mapped[short]
    site: Mapped[short] = mapped_column(default="default")
    flags: Mapped[json_object]
    properties: Mapped[json_object]
    state: Mapped[short]
    health: Mapped[short]
    health_reason: Mapped[text]
    setup_key: Mapped[short | None]
    setup_flight: Mapped[int | None]
    fence: Mapped[int] = mapped_column(default=0)
    present: Mapped[bool] = mapped_column(default=True)


class LeaseRow(Base):
    """A host held by an attempt or by a person (`booking`); at most one lease of a host is not released."""

    __tablename__ = "leases"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[short] = mapped_column(ForeignKey("hosts.name"))
    attempt: Mapped[int | None] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), index=True)
    booking: Mapped[int | None] = mapped_column(ForeignKey("bookings.id", ondelete="CASCADE"), index=True)
    holder: Mapped[short]
    fence: Mapped[int]
    since: Mapped[moment]
    released: Mapped[maybe_moment]

    __table_args__ = (
        Index(
            "uq_leases_held",
            "host",
            unique=True,
            sqlite_where=sql("released IS NULL"),
            postgresql_where=sql("released IS NULL"),
        ),
        CheckConstraint("(attempt IS NULL) <> (booking IS NULL)", name="one_holder"),
    )


class BookingRow(Base):
    """A person's lease, all its life: booked, active, ended. While it is active a `LeaseRow` holds its host.

    `begins` NULL: as soon as possible. `ends` is known once it has begun or is booked for a fixed time.
    """

    __tablename__ = "bookings"

    id: Mapped[int] = mapped_column(primary_key=True)
    holder: Mapped[short] = mapped_column(index=True)
    host: Mapped[short | None] = mapped_column(ForeignKey("hosts.name"), index=True)
    need: Mapped[text]
    begins: Mapped[maybe_moment]
    ends: Mapped[maybe_moment]
    seconds: Mapped[int]
    why: Mapped[text]
    preemptable: Mapped[bool] = mapped_column(default=False)
    state: Mapped[short] = mapped_column(index=True)
    outcome: Mapped[short | None]
    created: Mapped[moment]
    started: Mapped[maybe_moment]
    closed: Mapped[maybe_moment]
    notice: Mapped[maybe_moment]
    notice_for: Mapped[text]
    waits: Mapped[text]
    expected: Mapped[maybe_moment]
    heartbeat_s: Mapped[int | None]
    heard: Mapped[maybe_moment]

    __table_args__ = ({"sqlite_autoincrement": True},)


class BookingChangeRow(Base):
    """Something that was done to a person's lease, with who and why."""

    __tablename__ = "booking_changes"

    id: Mapped[int] = mapped_column(primary_key=True)
    booking: Mapped[int] = mapped_column(ForeignKey("bookings.id", ondelete="CASCADE"), index=True)
    at: Mapped[moment]
    what: Mapped[short]
    actor: Mapped[short]
    detail: Mapped[text]

    __table_args__ = ({"sqlite_autoincrement": True},)


class BlockageRow(Base):
    """Hosts that nobody may have for a time: one by name, or all that meet `need`. `ends` NULL: until removed."""

    __tablename__ = "blockages"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[short | None] = mapped_column(ForeignKey("hosts.name"))
    need: Mapped[text]
    begins: Mapped[moment]
    ends: Mapped[maybe_moment]
    why: Mapped[text]
    actor: Mapped[short]
    created: Mapped[moment]
    removed: Mapped[maybe_moment]
    removed_by: Mapped[short | None]

    __table_args__ = ({"sqlite_autoincrement": True},)


class HealthChangeRow(Base):
    """A change of a host's health, with who, why, and the evidence."""

    __tablename__ = "health_changes"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[short] = mapped_column(ForeignKey("hosts.name"), index=True)
    at: Mapped[moment]
    old: Mapped[short]
    new: Mapped[short]
    reason: Mapped[text]
    actor: Mapped[short]
    evidence: Mapped[json_object] = mapped_column(server_default="{}")


class SiteRow(Base):
    """The circuit breaker of a site (see `lab.hosts.breaker`); a site without a row is closed."""

    __tablename__ = "sites"

    name: Mapped[short] = mapped_column(primary_key=True)
    state: Mapped[short]
    failures: Mapped[int]
    since: Mapped[moment]
    until: Mapped[moment]
    reason: Mapped[text]


class ProcessRow(Base):
    """A process of the lab that shows now and then that it lives: a worker, a leader or one that stands by."""

    __tablename__ = "processes"

    name: Mapped[short] = mapped_column(primary_key=True)
    kind: Mapped[short]
    sites: Mapped[json_object]
    version: Mapped[short]
    started: Mapped[moment]
    seen: Mapped[moment]


class EventRow(Base):
    """Something that happened, in order, for whoever watches live."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[moment]
    flight: Mapped[int | None] = mapped_column(index=True)
    kind: Mapped[short]
    data: Mapped[json_object]

    __table_args__ = ({"sqlite_autoincrement": True},)


class WaitRow(Base):
    """Why a queued job waits, and when and where it is expected to run; the leader writes it (see `lab.db.waits`)."""

    __tablename__ = "waits"

    flight: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job: Mapped[short] = mapped_column(primary_key=True)
    kind: Mapped[short]
    text: Mapped[text]
    data: Mapped[json_object]
    place: Mapped[int | None] = mapped_column(index=True)
    start_p50: Mapped[maybe_moment]
    start_p90: Mapped[maybe_moment]
    end_p50: Mapped[maybe_moment]
    end_p90: Mapped[maybe_moment]
    hosts: Mapped[json_object]
    updated: Mapped[moment]

    __table_args__ = (ForeignKeyConstraint(["flight", "job"], ["jobs.flight", "jobs.name"], ondelete="CASCADE"),)


class ChangeRow(Base):
    """A row that the leader has to read again. Triggers on `jobs` and `hosts` write it; the leader deletes it."""

    __tablename__ = "changes"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[short]
    flight: Mapped[int | None]
    name: Mapped[short]


class TermRow(Base):
    """The number of the term of whoever leads; one row."""

    __tablename__ = "terms"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    term: Mapped[int]


class DurationRow(Base):
    """How long the latest attempts at something took on one class of hosts, in seconds, the newest first."""

    __tablename__ = "durations"

    subject: Mapped[short] = mapped_column(primary_key=True)
    host_class: Mapped[short] = mapped_column(primary_key=True)
    samples: Mapped[list[float]] = mapped_column(JSON)
    updated: Mapped[moment] = mapped_column(index=True)


class LastRunRow(Base):
    """When a job of some name last ended on a host, and whether it failed there."""

    __tablename__ = "last_runs"

    job: Mapped[short] = mapped_column(primary_key=True)
    host: Mapped[short] = mapped_column(primary_key=True)
    at: Mapped[moment] = mapped_column(index=True)
    failed: Mapped[bool]


class UsageRow(Base):
    """Host-seconds a tenant has used, as they count at `at`; they fade from then on."""

    __tablename__ = "usage"

    tenant: Mapped[short] = mapped_column(primary_key=True)
    host_seconds: Mapped[float] = mapped_column(Double)
    at: Mapped[moment]


class BisectionRow(Base):
    """A bisection (see `lab.flights.bisection_runs`): what is repeated, what lies between, and how it ended.

    `template`, `trees` and `histories` are all that a step needs: a bisection goes on from the database alone. `turn`
    counts changes. At most one of a branch, job and testid runs.
    """

    __tablename__ = "bisections"

    id: Mapped[int] = mapped_column(primary_key=True)
    branch: Mapped[short]
    job: Mapped[short]
    testid: Mapped[short]
    state: Mapped[short]
    reason: Mapped[text]
    basis_flight: Mapped[int | None]
    failing_flight: Mapped[int | None]
    actor: Mapped[short]
    started: Mapped[moment]
    finished: Mapped[maybe_moment]
    turn: Mapped[int] = mapped_column(default=0)
    policy: Mapped[json_object]
    template: Mapped[json_object]
    trees: Mapped[json_object]
    histories: Mapped[json_object]
    conclusion: Mapped[json_object]

    probes: Mapped[list[BisectionProbeRow]] = relationship(
        order_by="BisectionProbeRow.number", cascade="all, delete-orphan"
    )

    __table_args__ = (
        Index("ix_bisections_test", "branch", "job", "testid"),
        Index(
            "uq_bisections_running",
            "branch",
            "job",
            "testid",
            unique=True,
            sqlite_where=sql("finished IS NULL"),
            postgresql_where=sql("finished IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )


class BisectionProbeRow(Base):
    """A run at a node of a bisection; `flight` is NULL when none could be made, and `node` a revision of each tree."""

    __tablename__ = "bisection_probes"

    bisection: Mapped[int] = mapped_column(ForeignKey("bisections.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    flight: Mapped[int | None] = mapped_column(index=True)
    node: Mapped[list[str]] = mapped_column(JSON)
    purpose: Mapped[short]
    result: Mapped[short]
    reason: Mapped[text]
    started: Mapped[maybe_moment]
    finished: Mapped[maybe_moment]


class FlightRevisionRow(Base):
    """Which revision of a source tree a flight tests."""

    __tablename__ = "flight_revisions"

    flight: Mapped[int] = mapped_column(ForeignKey("flights.id", ondelete="CASCADE"), primary_key=True)
    tree: Mapped[short] = mapped_column(primary_key=True)
    revision: Mapped[short]

    __table_args__ = (Index("ix_flight_revisions_revision", "tree", "revision"),)


class GateRunRow(Base):
    """One run of a branch's push gate."""

    __tablename__ = "gate_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    branch: Mapped[short]
    started: Mapped[moment]
    finished: Mapped[maybe_moment]
    state: Mapped[short]
    old: Mapped[short]
    new: Mapped[short]
    flight: Mapped[int | None]
    baseline_flight: Mapped[int | None]
    verdict: Mapped[json_object]
    decision: Mapped[short]
    pushed: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[text]

    __table_args__ = (
        Index("ix_gate_runs_branch", "branch", "id", "decision", "pushed"),
        Index("ix_gate_runs_flight", "flight"),
        Index(
            "uq_gate_runs_open",
            "branch",
            unique=True,
            sqlite_where=sql("finished IS NULL"),
            postgresql_where=sql("finished IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )


class GateOverrideRow(Base):
    """What a person decided about a gate: hold, waive or force; who, why, until when."""

    __tablename__ = "gate_overrides"

    id: Mapped[int] = mapped_column(primary_key=True)
    branch: Mapped[short] = mapped_column(index=True)
    kind: Mapped[short]
    job: Mapped[short]
    testid: Mapped[short]
    revision: Mapped[short]
    actor: Mapped[short]
    reason: Mapped[text]
    created: Mapped[moment]
    expires: Mapped[maybe_moment]
    ended: Mapped[maybe_moment]
    ended_by: Mapped[short | None]

    __table_args__ = ({"sqlite_autoincrement": True},)


class MailRow(Base):
    """A mail to one recipient (see `lab.db.mails`). `key` says what it is about: that is sent to nobody twice."""

    __tablename__ = "mails"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[short]
    recipient: Mapped[text]
    subject: Mapped[text]
    content: Mapped[text]
    created: Mapped[moment]
    state: Mapped[short]
    tries: Mapped[int] = mapped_column(default=0)
    due: Mapped[moment]
    error: Mapped[text]
    sent: Mapped[maybe_moment]

    __table_args__ = (
        UniqueConstraint("key", "recipient"),
        Index("ix_mails_due", "state", "due"),
        {"sqlite_autoincrement": True},
    )


class SubscriptionRow(Base):
    """Who wants to be told of what."""

    __tablename__ = "subscriptions"

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[text]
    wanted: Mapped[short]
    branch: Mapped[short]
    job: Mapped[short]
    created: Mapped[moment]

    __table_args__ = ({"sqlite_autoincrement": True},)


class RegressionRow(Base):
    """A regression of a branch (see `lab.flights.regression_life`)."""

    __tablename__ = "regressions"

    id: Mapped[int] = mapped_column(primary_key=True)
    branch: Mapped[short]
    job: Mapped[short]
    testid: Mapped[short]
    signature: Mapped[short]
    sample: Mapped[text]
    life: Mapped[short]
    first_flight: Mapped[int]
    last_flight: Mapped[int]
    since: Mapped[moment]
    changed: Mapped[moment]
    owner: Mapped[short] = mapped_column(default="")
    bisection: Mapped[int | None]
    culprit: Mapped[short] = mapped_column(default="")
    passes: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        UniqueConstraint("branch", "job", "testid", "signature"),
        Index("ix_regressions_life", "life", "branch"),
        {"sqlite_autoincrement": True},
    )


class RegressionEventRow(Base):
    """What happened to a regression, who did it, and why."""

    __tablename__ = "regression_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    regression: Mapped[int] = mapped_column(ForeignKey("regressions.id", ondelete="CASCADE"), index=True)
    at: Mapped[moment]
    old: Mapped[short]
    new: Mapped[short]
    actor: Mapped[short]
    reason: Mapped[text]
    flight: Mapped[int | None]

    __table_args__ = ({"sqlite_autoincrement": True},)


class FailureSignatureRow(Base):
    """Where the message of a failure appeared first, and how often since: of each branch and test a row."""

    __tablename__ = "failure_signatures"

    signature: Mapped[short] = mapped_column(primary_key=True)
    branch: Mapped[short] = mapped_column(primary_key=True)
    job: Mapped[short] = mapped_column(primary_key=True)
    testid: Mapped[short] = mapped_column(primary_key=True)
    first_flight: Mapped[int]
    first_at: Mapped[moment]
    last_flight: Mapped[int]
    count: Mapped[int]
    sample: Mapped[text]


class KnownIssueRow(Base):
    """Something that people know of, whose it is, and until when that is so."""

    __tablename__ = "known_issues"

    id: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[short]
    testid: Mapped[short]
    words: Mapped[text]
    owner: Mapped[short]
    reason: Mapped[text]
    url: Mapped[text]
    actor: Mapped[short]
    created: Mapped[moment]
    expires: Mapped[moment]
    ended: Mapped[maybe_moment]

    __table_args__ = ({"sqlite_autoincrement": True},)

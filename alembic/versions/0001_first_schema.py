"""first schema"""

from alembic import op
import sqlalchemy as sa


revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('events',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('flight', sa.Integer(), nullable=True),
    sa.Column('kind', sa.String(length=128), nullable=False),
    sa.Column('data', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_events')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('events', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_events_flight'), ['flight'], unique=False)

    op.create_table('flights',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('branch', sa.String(length=128), nullable=False),
    sa.Column('intended', sa.String(length=128), nullable=False),
    sa.Column('blessing', sa.String(length=128), nullable=False),
    sa.Column('started', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished', sa.DateTime(timezone=True), nullable=True),
    sa.Column('submitter', sa.String(length=128), nullable=False),
    sa.Column('note', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_flights')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('flights', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_flights_blessing'), ['blessing'], unique=False)
        batch_op.create_index(batch_op.f('ix_flights_branch'), ['branch'], unique=False)

    op.create_table('hosts',
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('arch', sa.String(length=128), nullable=False),
    sa.Column('flags', sa.JSON(), nullable=False),
    sa.Column('properties', sa.JSON(), nullable=False),
    sa.Column('state', sa.String(length=128), nullable=False),
    sa.Column('health', sa.String(length=128), nullable=False),
    sa.Column('health_reason', sa.Text(), nullable=False),
    sa.Column('setup_key', sa.String(length=128), nullable=True),
    sa.Column('setup_flight', sa.Integer(), nullable=True),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('present', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_hosts'))
    )
    op.create_table('health_changes',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('host', sa.String(length=128), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('old', sa.String(length=128), nullable=False),
    sa.Column('new', sa.String(length=128), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.ForeignKeyConstraint(['host'], ['hosts.name'], name=op.f('fk_health_changes_host')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_health_changes'))
    )
    with op.batch_alter_table('health_changes', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_health_changes_host'), ['host'], unique=False)

    op.create_table('jobs',
    sa.Column('flight', sa.Integer(), nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('recipe', sa.String(length=128), nullable=False),
    sa.Column('status', sa.String(length=128), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('priority', sa.Integer(), nullable=False),
    sa.Column('queued', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['flight'], ['flights.id'], name=op.f('fk_jobs_flight'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('flight', 'name', name=op.f('pk_jobs'))
    )
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_jobs_status'), ['status'], unique=False)

    op.create_table('attempts',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('flight', sa.Integer(), nullable=False),
    sa.Column('job', sa.String(length=128), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('status', sa.String(length=128), nullable=False),
    sa.Column('token', sa.String(length=128), nullable=False),
    sa.Column('worker', sa.String(length=128), nullable=False),
    sa.Column('started', sa.DateTime(timezone=True), nullable=False),
    sa.Column('until', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished', sa.DateTime(timezone=True), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['flight', 'job'], ['jobs.flight', 'jobs.name'], name=op.f('fk_attempts_flight_job'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_attempts')),
    sa.UniqueConstraint('flight', 'job', 'number', name=op.f('uq_attempts_flight_job_number')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('attempts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_attempts_status'), ['status'], unique=False)

    op.create_table('runvars',
    sa.Column('flight', sa.Integer(), nullable=False),
    sa.Column('job', sa.String(length=128), nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('value', sa.Text(), nullable=False),
    sa.Column('synth', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['flight', 'job'], ['jobs.flight', 'jobs.name'], name=op.f('fk_runvars_flight_job'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('flight', 'job', 'name', name=op.f('pk_runvars'))
    )
    op.create_table('attempt_hosts',
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('role', sa.String(length=128), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('host', sa.String(length=128), nullable=False),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('reused', sa.Boolean(), nullable=False),
    sa.ForeignKeyConstraint(['attempt'], ['attempts.id'], name=op.f('fk_attempt_hosts_attempt'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['host'], ['hosts.name'], name=op.f('fk_attempt_hosts_host')),
    sa.PrimaryKeyConstraint('attempt', 'role', name=op.f('pk_attempt_hosts'))
    )
    with op.batch_alter_table('attempt_hosts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_attempt_hosts_host'), ['host'], unique=False)

    op.create_table('leases',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('host', sa.String(length=128), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('holder', sa.String(length=128), nullable=False),
    sa.Column('fence', sa.Integer(), nullable=False),
    sa.Column('since', sa.DateTime(timezone=True), nullable=False),
    sa.Column('released', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['attempt'], ['attempts.id'], name=op.f('fk_leases_attempt'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['host'], ['hosts.name'], name=op.f('fk_leases_host')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_leases'))
    )
    with op.batch_alter_table('leases', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_leases_attempt'), ['attempt'], unique=False)
        batch_op.create_index('uq_leases_held', ['host'], unique=True, sqlite_where=sa.text('released IS NULL'), postgresql_where=sa.text('released IS NULL'))

    op.create_table('steps',
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('stepno', sa.Integer(), nullable=False),
    sa.Column('testid', sa.String(length=128), nullable=False),
    sa.Column('step', sa.String(length=128), nullable=False),
    sa.Column('status', sa.String(length=128), nullable=False),
    sa.Column('started', sa.DateTime(timezone=True), nullable=False),
    sa.Column('finished', sa.DateTime(timezone=True), nullable=True),
    sa.Column('host', sa.String(length=128), nullable=True),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('evidence', sa.JSON(), nullable=False),
    sa.Column('log', sa.Text(), nullable=False),
    sa.Column('console', sa.JSON(), nullable=False),
    sa.ForeignKeyConstraint(['attempt'], ['attempts.id'], name=op.f('fk_steps_attempt'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('attempt', 'stepno', name=op.f('pk_steps')),
    sa.UniqueConstraint('attempt', 'testid', name=op.f('uq_steps_attempt_testid'))
    )


def downgrade() -> None:
    op.drop_table('steps')
    with op.batch_alter_table('leases', schema=None) as batch_op:
        batch_op.drop_index('uq_leases_held', sqlite_where=sa.text('released IS NULL'), postgresql_where=sa.text('released IS NULL'))
        batch_op.drop_index(batch_op.f('ix_leases_attempt'))

    op.drop_table('leases')
    with op.batch_alter_table('attempt_hosts', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_attempt_hosts_host'))

    op.drop_table('attempt_hosts')
    op.drop_table('runvars')
    with op.batch_alter_table('attempts', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_attempts_status'))

    op.drop_table('attempts')
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_jobs_status'))

    op.drop_table('jobs')
    with op.batch_alter_table('health_changes', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_health_changes_host'))

    op.drop_table('health_changes')
    op.drop_table('hosts')
    with op.batch_alter_table('flights', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_flights_branch'))
        batch_op.drop_index(batch_op.f('ix_flights_blessing'))

    op.drop_table('flights')
    with op.batch_alter_table('events', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_events_flight'))

    op.drop_table('events')

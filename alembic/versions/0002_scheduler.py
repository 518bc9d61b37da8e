"""tenants, estimates, waiting explained, and marks of what changed

Revision ID: 0002
Revises: 0001
"""
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = '0002'
down_revision: str | None = '0001'
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# table -> (kind, the columns of its row that name it, the columns whose change matters to the leader)
WATCHED = {
    'jobs': ('job', ('flight', 'name'), ('status', 'priority')),
    'hosts': ('host', ('NULL', 'name'), (
        'arch', 'flags', 'properties', 'state', 'health', 'setup_key', 'setup_flight', 'present',
    )),
}


def upgrade() -> None:
    # Plain ADD COLUMN: SQLite would recreate the table for anything else, and dropping the old one would cascade.
    op.add_column('flights', sa.Column('tenant', sa.String(length=128), server_default='', nullable=False))
    op.execute('UPDATE flights SET tenant = submitter')
    open_rows = {'sqlite_where': sa.text('finished IS NULL'), 'postgresql_where': sa.text('finished IS NULL')}
    op.create_index('ix_flights_open', 'flights', ['id'], unique=False, **open_rows)
    op.create_index('ix_attempts_open', 'attempts', ['until'], unique=False, **open_rows)

    op.create_table('waits',
    sa.Column('flight', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('job', sa.String(length=128), nullable=False),
    sa.Column('kind', sa.String(length=128), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('data', sa.JSON(), nullable=False),
    sa.Column('place', sa.Integer(), nullable=True),
    sa.Column('start_p50', sa.DateTime(timezone=True), nullable=True),
    sa.Column('start_p90', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_p50', sa.DateTime(timezone=True), nullable=True),
    sa.Column('end_p90', sa.DateTime(timezone=True), nullable=True),
    sa.Column('hosts', sa.JSON(), nullable=False),
    sa.Column('updated', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['flight', 'job'], ['jobs.flight', 'jobs.name'], name=op.f('fk_waits_flight'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('flight', 'job', name=op.f('pk_waits'))
    )
    op.create_index(op.f('ix_waits_place'), 'waits', ['place'], unique=False)

    op.create_table('changes',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('kind', sa.String(length=128), nullable=False),
    sa.Column('flight', sa.Integer(), nullable=True),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_changes'))
    )

    op.create_table('durations',
    sa.Column('subject', sa.String(length=128), nullable=False),
    sa.Column('host_class', sa.String(length=128), nullable=False),
    sa.Column('samples', sa.JSON(), nullable=False),
    sa.Column('updated', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('subject', 'host_class', name=op.f('pk_durations'))
    )
    op.create_index(op.f('ix_durations_updated'), 'durations', ['updated'], unique=False)

    op.create_table('usage',
    sa.Column('tenant', sa.String(length=128), nullable=False),
    sa.Column('host_seconds', sa.Double(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('tenant', name=op.f('pk_usage'))
    )

    for table, (kind, names, columns) in WATCHED.items():
        watch(table, kind, names, columns)


def downgrade() -> None:
    for table, (kind, _names, _columns) in WATCHED.items():
        unwatch(table, kind)
    op.drop_table('usage')
    op.drop_index(op.f('ix_durations_updated'), table_name='durations')
    op.drop_table('durations')
    op.drop_table('changes')
    op.drop_index(op.f('ix_waits_place'), table_name='waits')
    op.drop_table('waits')
    op.drop_index('ix_attempts_open', table_name='attempts')
    op.drop_index('ix_flights_open', table_name='flights')
    op.drop_column('flights', 'tenant')


def watch(table: str, kind: str, names: tuple[str, str], columns: tuple[str, ...]) -> None:
    """Whoever inserts, changes or deletes a row of the table leaves a mark in `changes`, in the same transaction."""
    changed = ', '.join(columns)
    if op.get_bind().dialect.name == 'sqlite':
        for event, row in (('INSERT', 'NEW'), (f'UPDATE OF {changed}', 'NEW'), ('DELETE', 'OLD')):
            key = ', '.join(name if name == 'NULL' else f'{row}.{name}' for name in names)
            op.execute(
                f'CREATE TRIGGER watch_{kind}_{event.split()[0].lower()} AFTER {event} ON {table} '
                f"BEGIN INSERT INTO changes (kind, flight, name) VALUES ('{kind}', {key}); END"
            )
        return
    new, old = (', '.join(name if name == 'NULL' else f'{row}.{name}' for name in names) for row in ('NEW', 'OLD'))
    op.execute(
        f"""CREATE FUNCTION watch_{kind}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' THEN
                INSERT INTO changes (kind, flight, name) VALUES ('{kind}', {old});
            ELSE
                INSERT INTO changes (kind, flight, name) VALUES ('{kind}', {new});
            END IF;
            RETURN NULL;
        END $$"""
    )
    op.execute(
        f'CREATE TRIGGER watch_{kind} AFTER INSERT OR DELETE OR UPDATE OF {changed} ON {table} '
        f'FOR EACH ROW EXECUTE FUNCTION watch_{kind}()'
    )


def unwatch(table: str, kind: str) -> None:
    if op.get_bind().dialect.name == 'sqlite':
        for event in ('insert', 'update', 'delete'):
            op.execute(f'DROP TRIGGER watch_{kind}_{event}')
        return
    op.execute(f'DROP TRIGGER watch_{kind} ON {table}')
    op.execute(f'DROP FUNCTION watch_{kind}()')

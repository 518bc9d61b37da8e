"""leases of people, bookings, blockages"""

from alembic import op
import sqlalchemy as sa


revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('bookings',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('holder', sa.String(length=128), nullable=False),
    sa.Column('host', sa.String(length=128), nullable=True),
    sa.Column('need', sa.Text(), nullable=False),
    sa.Column('begins', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ends', sa.DateTime(timezone=True), nullable=True),
    sa.Column('seconds', sa.Integer(), nullable=False),
    sa.Column('why', sa.Text(), nullable=False),
    sa.Column('preemptable', sa.Boolean(), nullable=False),
    sa.Column('state', sa.String(length=128), nullable=False),
    sa.Column('outcome', sa.String(length=128), nullable=True),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.Column('started', sa.DateTime(timezone=True), nullable=True),
    sa.Column('closed', sa.DateTime(timezone=True), nullable=True),
    sa.Column('notice', sa.DateTime(timezone=True), nullable=True),
    sa.Column('notice_for', sa.Text(), nullable=False),
    sa.Column('waits', sa.Text(), nullable=False),
    sa.Column('expected', sa.DateTime(timezone=True), nullable=True),
    sa.Column('heartbeat_s', sa.Integer(), nullable=True),
    sa.Column('heard', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['host'], ['hosts.name'], name=op.f('fk_bookings_host')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_bookings')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('bookings', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_bookings_holder'), ['holder'], unique=False)
        batch_op.create_index(batch_op.f('ix_bookings_host'), ['host'], unique=False)
        batch_op.create_index(batch_op.f('ix_bookings_state'), ['state'], unique=False)

    op.create_table('booking_changes',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('booking', sa.Integer(), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('what', sa.String(length=128), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['booking'], ['bookings.id'], name=op.f('fk_booking_changes_booking'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_booking_changes')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('booking_changes', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_booking_changes_booking'), ['booking'], unique=False)

    op.create_table('blockages',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('host', sa.String(length=128), nullable=True),
    sa.Column('need', sa.Text(), nullable=False),
    sa.Column('begins', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ends', sa.DateTime(timezone=True), nullable=True),
    sa.Column('why', sa.Text(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('created', sa.DateTime(timezone=True), nullable=False),
    sa.Column('removed', sa.DateTime(timezone=True), nullable=True),
    sa.Column('removed_by', sa.String(length=128), nullable=True),
    sa.ForeignKeyConstraint(['host'], ['hosts.name'], name=op.f('fk_blockages_host')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_blockages')),
    sqlite_autoincrement=True
    )

    # The index on what is held is made anew by hand: SQLite builds the whole table again, and would lose its condition.
    op.drop_index('uq_leases_held', table_name='leases')
    with op.batch_alter_table('leases', schema=None) as batch_op:
        batch_op.alter_column('attempt', existing_type=sa.Integer(), nullable=True)
        batch_op.add_column(sa.Column('booking', sa.Integer(), nullable=True))
        batch_op.create_foreign_key(batch_op.f('fk_leases_booking'), 'bookings', ['booking'], ['id'], ondelete='CASCADE')
        batch_op.create_check_constraint(batch_op.f('ck_leases_one_holder'), '(attempt IS NULL) <> (booking IS NULL)')
        batch_op.create_index(batch_op.f('ix_leases_booking'), ['booking'], unique=False)
    _index_of_what_is_held()


def downgrade() -> None:
    op.drop_index('uq_leases_held', table_name='leases')
    op.execute('DELETE FROM leases WHERE attempt IS NULL')
    with op.batch_alter_table('leases', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_leases_booking'))
        batch_op.drop_constraint(batch_op.f('ck_leases_one_holder'), type_='check')
        batch_op.drop_constraint(batch_op.f('fk_leases_booking'), type_='foreignkey')
        batch_op.drop_column('booking')
        batch_op.alter_column('attempt', existing_type=sa.Integer(), nullable=False)
    _index_of_what_is_held()
    op.drop_table('blockages')
    op.drop_table('booking_changes')
    op.drop_table('bookings')


def _index_of_what_is_held() -> None:
    op.create_index('uq_leases_held', 'leases', ['host'], unique=True,
                    sqlite_where=sa.text('released IS NULL'), postgresql_where=sa.text('released IS NULL'))

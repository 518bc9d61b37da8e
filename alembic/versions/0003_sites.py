"""sites, and the processes of the lab"""

from alembic import op
import sqlalchemy as sa


revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


HOST_COLUMNS = 'arch, flags, properties, state, health, setup_key, setup_flight, present'


def upgrade() -> None:
    op.create_table('sites',
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('state', sa.String(length=128), nullable=False),
    sa.Column('failures', sa.Integer(), nullable=False),
    sa.Column('since', sa.DateTime(timezone=True), nullable=False),
    sa.Column('until', sa.DateTime(timezone=True), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_sites'))
    )
    op.create_table('processes',
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('kind', sa.String(length=128), nullable=False),
    sa.Column('sites', sa.JSON(), nullable=False),
    sa.Column('version', sa.String(length=128), nullable=False),
    sa.Column('started', sa.DateTime(timezone=True), nullable=False),
    sa.Column('seen', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_processes'))
    )
    # What was there before had one site, the default one.
    op.add_column('hosts', sa.Column('site', sa.String(length=128), nullable=False, server_default='default'))
    op.add_column('attempts', sa.Column('site', sa.String(length=128), nullable=False, server_default='default'))
    rewatch_hosts(HOST_COLUMNS + ', site')


def downgrade() -> None:
    rewatch_hosts(HOST_COLUMNS)
    op.drop_column('attempts', 'site')
    op.drop_column('hosts', 'site')
    op.drop_table('processes')
    op.drop_table('sites')


def rewatch_hosts(columns: str) -> None:
    """A host that moves to another site leaves a mark, too."""
    if op.get_bind().dialect.name == 'sqlite':
        op.execute('DROP TRIGGER watch_host_update')
        op.execute(
            f'CREATE TRIGGER watch_host_update AFTER UPDATE OF {columns} ON hosts '
            "BEGIN INSERT INTO changes (kind, flight, name) VALUES ('host', NULL, NEW.name); END"
        )
        return
    op.execute('DROP TRIGGER watch_host ON hosts')
    op.execute(
        f'CREATE TRIGGER watch_host AFTER INSERT OR DELETE OR UPDATE OF {columns} ON hosts '
        'FOR EACH ROW EXECUTE FUNCTION watch_host()'
    )

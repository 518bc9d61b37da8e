"""any change of a host matters to the leader"""

from alembic import op


revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

COLUMNS = 'arch, flags, properties, state, health, setup_key, setup_flight, present'


def upgrade() -> None:
    watch('UPDATE')


def downgrade() -> None:
    watch(f'UPDATE OF {COLUMNS}')


def watch(update: str) -> None:
    if op.get_bind().dialect.name == 'sqlite':
        op.execute('DROP TRIGGER watch_host_update')
        op.execute(
            f'CREATE TRIGGER watch_host_update AFTER {update} ON hosts '
            "BEGIN INSERT INTO changes (kind, flight, name) VALUES ('host', NULL, NEW.name); END"
        )
        return
    op.execute('DROP TRIGGER watch_host ON hosts')
    op.execute(
        f'CREATE TRIGGER watch_host AFTER INSERT OR DELETE OR {update} ON hosts '
        'FOR EACH ROW EXECUTE FUNCTION watch_host()'
    )

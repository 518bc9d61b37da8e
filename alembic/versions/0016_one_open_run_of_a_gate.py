"""one open run of a branch's gate: two processes may begin one at the same moment"""

from alembic import op
import sqlalchemy as sa


revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None

_OPEN = {'sqlite_where': sa.text('finished IS NULL'), 'postgresql_where': sa.text('finished IS NULL')}


def upgrade() -> None:
    op.execute(
        "UPDATE gate_runs SET finished = started, state = 'failed', decision = '', "
        "reason = 'another run of this gate was under way' "
        'WHERE finished IS NULL AND id NOT IN (SELECT min(id) FROM gate_runs WHERE finished IS NULL GROUP BY branch)'
    )
    op.create_index('uq_gate_runs_open', 'gate_runs', ['branch'], unique=True, **_OPEN)


def downgrade() -> None:
    op.drop_index('uq_gate_runs_open', 'gate_runs', **_OPEN)

"""when attempts ended: indexes for what is asked of hosts' and jobs' recent past"""

from alembic import op


revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index('ix_attempts_finished', 'attempts', ['finished'])
    op.create_index('ix_attempts_job', 'attempts', ['job', 'finished'])


def downgrade() -> None:
    op.drop_index('ix_attempts_job', 'attempts')
    op.drop_index('ix_attempts_finished', 'attempts')

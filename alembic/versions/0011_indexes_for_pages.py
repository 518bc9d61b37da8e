"""indexes for the pages: jobs counted by status, a job over all flights, what ran on a host"""

from alembic import op


revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index('ix_jobs_flight', 'jobs', ['flight', 'status'])
    op.create_index('ix_attempts_history', 'attempts', ['job', 'flight', 'number'])
    op.drop_index('ix_attempt_hosts_host', 'attempt_hosts')
    op.create_index('ix_attempt_hosts_host', 'attempt_hosts', ['host', 'attempt'])


def downgrade() -> None:
    op.drop_index('ix_attempt_hosts_host', 'attempt_hosts')
    op.create_index('ix_attempt_hosts_host', 'attempt_hosts', ['host'])
    op.drop_index('ix_attempts_history', 'attempts')
    op.drop_index('ix_jobs_flight', 'jobs')

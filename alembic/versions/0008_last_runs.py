"""last runs: where each job ended of late, and whether it failed there"""

from alembic import op
import sqlalchemy as sa

import lab.db.base


revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('last_runs',
    sa.Column('job', sa.String(length=128), nullable=False),
    sa.Column('host', sa.String(length=128), nullable=False),
    sa.Column('at', lab.db.base.UtcDateTime(), nullable=False),
    sa.Column('failed', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('job', 'host', name=op.f('pk_last_runs'))
    )
    op.create_index(op.f('ix_last_runs_at'), 'last_runs', ['at'], unique=False)


def downgrade() -> None:
    op.drop_index(op.f('ix_last_runs_at'), table_name='last_runs')
    op.drop_table('last_runs')

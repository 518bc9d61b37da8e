"""health of hosts: what an attempt broke on, and the evidence of each change"""

from alembic import op
import sqlalchemy as sa


revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('attempts', sa.Column('blames', sa.String(length=128), nullable=True))
    op.add_column('health_changes', sa.Column('evidence', sa.JSON(), nullable=False, server_default='{}'))


def downgrade() -> None:
    op.drop_column('health_changes', 'evidence')
    op.drop_column('attempts', 'blames')

"""terms: whoever leads has a number, and who led before can decide nothing any more"""

from alembic import op
import sqlalchemy as sa


revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('terms',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('term', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_terms'))
    )


def downgrade() -> None:
    op.drop_table('terms')

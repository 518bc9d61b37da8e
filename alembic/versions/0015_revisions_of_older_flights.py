"""the revisions that older flights tested, from the runvars of their builds"""

import re

from alembic import op
import sqlalchemy as sa


revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None

_COMMIT = re.compile('[0-9a-f]{40}')
_ELSEWHERE = re.compile('([1-9][0-9]{0,8})[.](.+)')

_FLIGHT_REVISIONS = sa.table('flight_revisions', sa.column('flight'), sa.column('tree'), sa.column('revision'))


def upgrade() -> None:
    # A flight tests what its own builds make, and what it takes from builds of other flights. As when a flight is
    # constructed: two revisions of one tree say nothing, nor does the name of a branch.
    connection = op.get_bind()
    builds = {}
    for flight, job, name, value in connection.execute(sa.text(
        "SELECT r.flight, r.job, r.name, r.value FROM runvars r JOIN jobs j ON j.flight = r.flight AND j.name = r.job "
        "WHERE j.recipe = 'build-xen' AND r.name IN ('tree', 'revision') AND NOT r.synth"
    )):
        builds.setdefault((flight, job), {})[name] = value
    pairs = {
        key: (build.get('tree', 'xen'), build['revision']) for key, build in builds.items() if 'revision' in build
    }
    found = {}
    for (flight, _job), pair in pairs.items():
        found.setdefault(flight, set()).add(pair)
    for flight, value in connection.execute(sa.text(
        "SELECT DISTINCT flight, value FROM runvars WHERE NOT synth AND value LIKE '%.%' "
        "AND (name = 'xenbuildjob' OR name LIKE '%!_xenbuildjob' ESCAPE '!')"
    )):
        named = _ELSEWHERE.fullmatch(value)
        if named and (pair := pairs.get((int(named[1]), named[2]))) is not None:
            found.setdefault(flight, set()).add(pair)
    known = set(connection.scalars(sa.text('SELECT DISTINCT flight FROM flight_revisions')))
    rows = []
    for flight in sorted(found.keys() - known):
        trees = [tree for tree, _revision in found[flight]]
        rows += [
            {'flight': flight, 'tree': tree, 'revision': commit}
            for tree, commit in sorted(found[flight])
            if trees.count(tree) == 1 and _COMMIT.fullmatch(commit)
        ]
    if rows:
        op.bulk_insert(_FLIGHT_REVISIONS, rows)


def downgrade() -> None:
    """What was added stays: it is as true as what was there."""

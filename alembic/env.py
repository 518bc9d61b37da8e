"""Runs migrations; the engine comes from the program, never from a file."""

from alembic import context

from lab.db import tables  # noqa: F401 - declares the tables
from lab.db.base import Base, UtcDateTime


def render_item(kind, item, _autogen_context):
    """A migration must still run when the program's own column types have changed: name the library's."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


with context.config.attributes["engine"].connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite cannot alter most things in place
        render_item=render_item,
        compare_type=True,
        transactional_ddl=True,  # all migrations at once or none, also on SQLite: two commands may find an old database
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()

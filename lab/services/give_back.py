"""Give back: a host that stands free, whatever it was set up for, is switched off before anybody else gets it."""

from __future__ import annotations

from functools import partial

from sqlalchemy.orm import Session

from lab.context import Lab
from lab.db import hosts
from lab.db import session as db


def give_back(session: Session, lab: Lab, name: str) -> bool:
    """Send a free host to be cleaned by a worker; False when it is not free (any more)."""
    if not hosts.clean_free_host(session, name):
        return False
    db.after_commit(session, partial(lab.dispatch.clean_host, name))
    return True

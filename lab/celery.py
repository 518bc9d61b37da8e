"""The Celery application of this installation, for `celery -A lab.celery worker`."""

from __future__ import annotations

from lab.broker import make_celery
from lab.settings import read_settings

app = make_celery(read_settings())

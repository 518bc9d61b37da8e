"""The servers of the integration tests, for what is measured on them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "integration"
sys.path.insert(0, str(_FOLDER))
_spec = importlib.util.spec_from_file_location("integration_servers", _FOLDER / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_servers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_servers)

postgres = _servers.postgres
new_postgres_database = _servers.new_postgres_database
sqlite_template = _servers.sqlite_template
redis_url = _servers.redis_url

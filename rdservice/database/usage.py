"""How many connections the service's role uses, and how many PostgreSQL would still give it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import psycopg

ProcessKind = Literal["web", "worker", "command", "other"]

BY_PROCESS = """
SELECT substring(application_name FROM '^rdservice (web|worker|command)$'), count(*)
  FROM pg_stat_activity WHERE usename = current_user GROUP BY 1
"""
# NULL where nothing limits; LEAST ignores it.
FREE = """
SELECT LEAST(
    (SELECT NULLIF(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)
        - (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user),
    (SELECT NULLIF(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
        - (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'))
"""


@dataclass(frozen=True, kw_only=True)
class Connections:
    """Connections of the service's role by kind of process, and how many more the limits allow."""

    by_process: Mapping[ProcessKind, int]
    free: int


def read(conn: psycopg.Connection[Any]) -> Connections:
    """Read the connections that PostgreSQL has now. Behind a pooler these are the pooler's."""
    by_process: dict[ProcessKind, int] = dict.fromkeys(get_args(ProcessKind), 0)
    for process, number in conn.execute(BY_PROCESS):
        by_process[process or "other"] += number
    (free,) = conn.execute(FREE).fetchone() or (0,)
    return Connections(by_process=by_process, free=max(0, free))

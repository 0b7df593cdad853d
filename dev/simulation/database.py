"""The simulation's PostgreSQL: a real server, one connection for all processes, and a clock that can be set.

One connection is enough: one thread runs at a time, and no transaction is open when another thread goes on, which is
checked at each of them.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

import psycopg
from psycopg_pool import PoolTimeout

from dev.simulation.scheduler import Process, Scheduler, SimulatedEvent
from rdservice.database import migrate
from rdservice.database.pool import BEGIN
from scripts.local.embedded_postgres import EmbeddedPostgres

START = 1_800_000_000
"""Unix time at which every run starts."""
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # Autovacuum runs at arbitrary times; the simulation vacuums at virtual times instead.
    "autovacuum": "off",
}
QUERY_S = (0.0005, 0.003)
"""Bounds of the random delay of a transaction."""
VACUUM_EVERY_S = 4 * 3600.0

# Inlined like the real function, so that PostgreSQL makes the same plans.
CLOCK = """
CREATE OR REPLACE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$SELECT to_timestamp(current_setting('simulation.now')::float8)$$;
CREATE FUNCTION simulation_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'changed %', COALESCE(NEW.account_id, OLD.account_id);
    RETURN NULL;
END $$;
CREATE TRIGGER simulation_tell AFTER INSERT OR UPDATE OR DELETE ON rdstation_tokens
   FOR EACH ROW EXECUTE FUNCTION simulation_tell();
CREATE TRIGGER simulation_tell AFTER INSERT OR UPDATE OR DELETE ON rdstation_replaced_tokens
   FOR EACH ROW EXECUTE FUNCTION simulation_tell();
CREATE FUNCTION simulation_tell_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'gate';
    RETURN NULL;
END $$;
CREATE TRIGGER simulation_tell_gate AFTER INSERT OR UPDATE OR DELETE ON rdstation_client_credentials
   FOR EACH ROW EXECUTE FUNCTION simulation_tell_gate();
"""
VACUUM = (
    "VACUUM (ANALYZE) rdstation_tokens, rdstation_refresh_attempts, rdstation_client_credentials, rdstation_workers,"
    " rdstation_rate_limits, rdservice_metric_hours, rdstation_replaced_tokens, rdstation_oauth_states,"
    " rdstation_waiting_pairs"
)


class Watcher(Protocol):
    """Receives what was committed."""

    def committed(self, conn: psycopg.Connection[Any], changed: list[str], *, gate: bool) -> None:
        """`changed`: accounts whose row, or whose kept pair, has changed. `gate`: the credentials' row has changed."""


class _Connection(psycopg.Connection[Any]):
    """Sets the clock with the statement that begins a transaction."""

    clock: Callable[[], float]

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
        if query == BEGIN:
            query = f"{BEGIN}; SET LOCAL simulation.now = '{self.clock():.6f}'"
        return super().execute(query, *args, **kwargs)


class SimulatedDatabase:
    """The server. `offset_s`: seconds by which its clock is ahead of RD Station's, which is correct."""

    def __init__(self, server: EmbeddedPostgres, scheduler: Scheduler, dice: random.Random) -> None:
        self.offset_s = 0.0
        self.watcher: Watcher | None = None
        self._server = server
        self._scheduler = scheduler
        self._dice = dice
        self._up = SimulatedEvent(scheduler)
        self._up.set()
        self._lent = False
        self._changed: dict[str, None] = {}
        self._gate_changed = False
        with psycopg.connect(server.url, autocommit=True) as conn:
            migrate.migrate(conn)
            conn.execute("SELECT set_config('simulation.now', %s, false)", [str(START)])
            conn.execute(CLOCK)
        self._conn = self._connect()
        scheduler.after(VACUUM_EVERY_S, self._vacuum)

    @property
    def now(self) -> float:
        """The database's clock, in Unix seconds."""
        return START + self._scheduler.now + self.offset_s

    @property
    def up(self) -> bool:
        return self._up.is_set()

    def close(self) -> None:
        self._conn.close()

    def go_down(self) -> None:
        self._up.clear()

    def come_back(self, *, restart: bool) -> None:
        """End an outage; `restart` stops and starts the real server first."""
        if restart:
            self._conn.close()
            self._server.stop()
            self._server.start()
            self._conn = self._connect()
        self._up.set()

    def wait_until_up(self, seconds: float) -> bool:
        return self._up.wait(seconds)

    def pause(self) -> float:
        """Return the delay of a transaction, in seconds."""
        return self._dice.uniform(*QUERY_S)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend the connection for one transaction; it commits at the end, and rolls back on an exception."""
        if self._lent:
            raise RuntimeError("two transactions at once: a thread waited inside of one")
        self._lent = True
        self._changed.clear()
        self._gate_changed = False
        try:
            yield self._conn
            self._conn.commit()
        except BaseException:
            self._conn.rollback()
            raise
        finally:
            self._lent = False
        if self.watcher is not None and (self._changed or self._gate_changed):
            self.watcher.committed(self._conn, list(self._changed), gate=self._gate_changed)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend the connection to an observer outside of all processes."""
        with self.connection() as conn:
            conn.execute(BEGIN)
            yield conn

    def query(self, statement: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        """Run a query as an observer."""
        with self.transaction() as conn:
            return conn.execute(statement.encode(), values).fetchall()

    def _connect(self) -> psycopg.Connection[Any]:
        conn = _Connection.connect(self._server.url, autocommit=True, prepare_threshold=2)
        conn.clock = lambda: self.now
        conn.execute("SELECT setseed(%s)", [self._dice.uniform(-1, 1)])
        conn.add_notice_handler(self._noticed)
        return conn

    def _noticed(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        message = diagnostic.message_primary or ""
        if message == "gate":
            self._gate_changed = True
        elif message.startswith("changed "):
            self._changed[message.removeprefix("changed ")] = None

    def _vacuum(self) -> None:
        self._conn.execute(VACUUM)
        self._scheduler.after(VACUUM_EVERY_S, self._vacuum)


class SimulatedPool:
    """A simulated process's replacement for `psycopg_pool.ConnectionPool`.

    `cut` is asked before each commit whether the connection breaks there: `before` it took effect, `after`, or not.
    `committed` is told of each commit that the process knows of.
    """

    def __init__(
        self,
        process: Process,
        server: SimulatedDatabase,
        *,
        cut: Callable[[], str | None],
        committed: Callable[[], None],
    ) -> None:
        self._process = process
        self._server = server
        self._cut = cut
        self._committed = committed

    def getconn(self, timeout: float) -> psycopg.Connection[Any]:
        """Lend the connection for one transaction, which a `with` block on it ends."""
        self._process.scheduler.sleep(self._server.pause())
        if not self._server.wait_until_up(timeout):
            raise PoolTimeout("the database is down")
        return cast("psycopg.Connection[Any]", _Lent(self._transaction()))

    def putconn(self, conn: psycopg.Connection[Any]) -> None:
        """Take the connection back, also when its transaction could not begin."""
        cast(_Lent, conn).end(*sys.exc_info())

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        cut = None
        with contextlib.suppress(_CutOff), self._server.connection() as conn:
            yield conn
            cut = self._cut()
            if cut == "before":
                raise _CutOff
        if cut is not None:
            raise psycopg.OperationalError(f"the connection was cut {cut} the commit took effect")
        self._committed()


class _Lent:
    """The connection as one caller has it."""

    def __init__(self, transaction: AbstractContextManager[psycopg.Connection[Any]]) -> None:
        self._transaction = transaction
        self._conn = transaction.__enter__()
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    def __enter__(self) -> psycopg.Connection[Any]:
        return self._conn

    def __exit__(self, *error: Any) -> None:
        self.end(*error)

    def end(self, *error: Any) -> None:
        """Commit, or roll back where there is an error; once."""
        if not self._ended:
            self._ended = True
            self._transaction.__exit__(*error)


class _CutOff(Exception):
    """The connection breaks before the commit takes effect."""

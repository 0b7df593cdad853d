"""A real PostgreSQL and a real sandbox for all tests; each test finds both empty."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, configuration
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from psycopg_pool import ConnectionPool

from rdservice.config.settings import Settings
from rdservice.database import migrate, outage
from rdservice.database.pool import create_pool
from rdservice.services import Services
from scripts.local.embedded_postgres import EmbeddedPostgres
from tests.support.key_changes import Keys, make_keys
from tests.support.older_table import Release
from tests.support.sandbox_process import SandboxProcess

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
CLIENT_SECRET = "client-secret-of-the-tests"
REDIRECT_URI = "http://localhost:8000/rd/callback"

REPOSITORY = Path(__file__).resolve().parent.parent
NOBODY_WAITS_FOR_THE_DISK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

configuration.set_hypothesis_home_dir(REPOSITORY / ".pytest_cache" / "hypothesis")
# The same input each time, so that a run can be repeated. Neither a slow machine nor a fixture that all examples share
# is a defect.
hypothesis_settings.register_profile(
    "tests",
    derandomize=True,
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# Other input each time: `--hypothesis-profile=search`.
hypothesis_settings.register_profile(
    "search", hypothesis_settings.get_profile("tests"), derandomize=False, max_examples=10_000
)
hypothesis_settings.load_profile("tests")


# Files are shared out in this order, so that a run's last minutes are left to short ones.
HEAVIEST_FIRST = ("e2e", "dev", "docs", "integration", "unit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side (`-n`), begin with the files that take longest; alone, keep the order of the files."""
    if hasattr(config, "workerinput"):
        items.sort(key=_weight)


def _weight(item: pytest.Item) -> int:
    folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
    return HEAVIEST_FIRST.index(folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Where everything must be there (RDSERVICE_REQUIRE_ALL), a skipped test has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("RDSERVICE_REQUIRE_ALL"):
        report.outcome = "failed"
        report.longrepr = f"skipped although everything is required here: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """The developer's own settings must not reach the tests."""
    names = [name for name in os.environ if name.startswith(("RDSTATION_", "SANDBOX_"))]
    names += ["DATABASE_URL", "SECRET_KEY", "TOKEN_ENCRYPTION_KEYS", "METRICS_TOKEN", "TRUSTED_PROXIES"]
    names += ["NOTIFY_URLS"]
    names += ["DYNO", "RDSERVICE_ENV", "RDSERVICE_DATA_DIR", "PORT"]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _lines_of_an_outage() -> None:
    """The first line about an outage is of each test's own outage, also after a test of a command, which is silent."""
    outage.log.filters[:] = [outage.Sparse()]
    outage.log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def postgres_programs() -> Path | None:
    """The folder of the PostgreSQL that is tested; None for the embedded one."""
    folder = os.environ.get("RDSERVICE_TEST_POSTGRES_BIN")
    return Path(folder) if folder else None


@pytest.fixture(scope="session")
def new_postgres(
    postgres_programs: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], EmbeddedPostgres]:
    """Makes a further server, for tests that stop or break it; it is not started yet."""

    def make() -> EmbeddedPostgres:
        folder = tmp_path_factory.mktemp("postgres")
        return EmbeddedPostgres(folder, bin_dir=postgres_programs, settings=NOBODY_WAITS_FOR_THE_DISK)

    return make


@pytest.fixture(scope="session")
def server(new_postgres: Callable[[], EmbeddedPostgres]) -> Iterator[EmbeddedPostgres]:
    """The PostgreSQL server of the test run, for those who make databases of their own in it."""
    with new_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def _migrated_url(server: EmbeddedPostgres) -> str:
    with psycopg.connect(server.url, autocommit=True) as conn:
        migrate.migrate(conn)
    return server.url


# A process that an earlier test killed may still have a statement under way: it would deadlock with the next lines.
END_OTHER_CONNECTIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# Ten times faster than TRUNCATE on tables with a handful of rows; every foreign key cascades.
EMPTY_ALL_TABLES = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations'
    LOOP
        -- As a superuser may: the triggers of rdservice_audit let nobody delete what is young.
        PERFORM set_config('session_replication_role',
                           CASE name WHEN 'rdservice_audit' THEN 'replica' ELSE 'origin' END, true);
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
END $$
"""


@pytest.fixture
def database_url(_migrated_url: str) -> str:
    """The URL of a migrated database in which all tables are empty."""
    with psycopg.connect(_migrated_url, autocommit=True) as conn:
        conn.execute(END_OTHER_CONNECTIONS)
        conn.execute(EMPTY_ALL_TABLES)
    return _migrated_url


@pytest.fixture
def empty_database_url(server: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a database without any table."""
    name = "empty"
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
        yield server.url.replace("/rdservice", f"/{name}", 1)
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def older(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database in which the test makes a table as an older backend left it."""
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def release(older: psycopg.Connection[Any], empty_database_url: str) -> Iterator[Release]:
    """Brings the database of `older` to this version."""
    with create_pool(empty_database_url, max_size=3, name="test") as pool:
        yield Release(older, pool)


@pytest.fixture(scope="session")
def _sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    with SandboxProcess(
        tmp_path_factory.mktemp("sandbox") / "state.db",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        redirect_uri=REDIRECT_URI,
    ) as running:
        yield running


@pytest.fixture
def sandbox(_sandbox: SandboxProcess) -> SandboxProcess:
    """RD Station's imitation, as new."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture
def variables(database_url: str) -> dict[str, str]:
    """Valid settings as environment variables; RD Station is where nobody listens."""
    return {
        "RDSTATION_CLIENT_ID": CLIENT_ID,
        "RDSTATION_CLIENT_SECRET": CLIENT_SECRET,
        "RDSTATION_REDIRECT_URI": REDIRECT_URI,
        "RDSTATION_API_URL": "http://127.0.0.1:9",
        "DATABASE_URL": database_url,
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
        "TOKEN_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    }


@pytest.fixture
def settings(variables: dict[str, str]) -> Settings:
    return Settings.from_mapping(variables)


@pytest.fixture
def sandbox_settings(variables: dict[str, str], sandbox: SandboxProcess) -> Settings:
    """Settings with the sandbox as RD Station."""
    return Settings.from_mapping(variables | {"RDSTATION_API_URL": sandbox.url})


@pytest.fixture
def make_services() -> Iterator[Callable[[Settings], Services]]:
    """Starts the parts of a process; several stand for several processes."""
    started: list[Services] = []

    def make(settings: Settings) -> Services:
        started.append(Services.start(settings, name="test"))
        return started[-1]

    yield make
    for services in started:
        services.refresher.must_end.set()
        services.close()


@pytest.fixture
def services(make_services: Callable[[Settings], Services], settings: Settings) -> Services:
    return make_services(settings)


@pytest.fixture
def connected(make_services: Callable[[Settings], Services], sandbox_settings: Settings) -> Services:
    """The parts of a process whose RD Station is the sandbox."""
    return make_services(sandbox_settings)


@pytest.fixture
def change(make_services: Callable[[Settings], Services], variables: dict[str, str]) -> Keys:
    """An encryption key that is being changed, and processes before, during and after it."""
    return make_keys(make_services, variables)


@pytest.fixture
def pool(services: Services) -> ConnectionPool[psycopg.Connection[Any]]:
    return services.pool


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit mode, beside those of the service."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


class Clock:
    """The database's clock, `rd_now()`, which tests can set forward."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._ahead_s = 0.0

    def advance(self, seconds: float) -> None:
        self._set(self._ahead_s + seconds)

    def reset(self) -> None:
        self._set(0)

    def _set(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s
        body = f"SELECT now() + interval '{ahead_s} seconds'" if ahead_s else "SELECT pg_catalog.now()"
        self._conn.execute(
            sql.SQL(
                "CREATE OR REPLACE FUNCTION rd_now() RETURNS timestamptz LANGUAGE sql STABLE AS {}"
            ).format(body)
        )


@pytest.fixture
def clock(conn: psycopg.Connection[Any]) -> Iterator[Clock]:
    """The database's clock; it is right again after the test."""
    found = Clock(conn)
    yield found
    found.reset()

"""The health routes."""

from collections.abc import Callable
from typing import Any

import psycopg

from rdservice.config.settings import Settings
from rdservice.services import Services
from rdservice.web import create_app
from tests.support.browser import Browser

MakeServices = Callable[[Settings], Services]


def test_a_process_with_database_and_tables_is_alive_and_ready(browser: Browser) -> None:
    for path in ("/healthz", "/readyz"):
        response = browser.get(path)
        assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_without_migrations_a_process_is_alive_but_not_ready(
    variables: dict[str, str], empty_database_url: str, make_services: MakeServices
) -> None:
    services = make_services(Settings.from_mapping(variables | {"DATABASE_URL": empty_database_url}))
    program = Browser(create_app(services), accept="*/*")
    assert program.get("/healthz").status_code == 200
    response = program.get("/readyz")
    assert response.status_code == 503
    assert response.json is not None
    assert "0001_tokens" in response.json["detail"]
    assert "flask release" in response.json["detail"]
    services.pool.close()


def test_a_process_is_not_ready_after_one_migration_is_missing(
    browser: Browser, conn: psycopg.Connection[Any]
) -> None:
    row = conn.execute(
        "DELETE FROM schema_migrations WHERE version = 2 RETURNING name, applied_at"
    ).fetchone()
    assert row is not None
    try:
        assert browser.get("/readyz").status_code == 503
    finally:
        conn.execute(
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES (2, %s, %s)", list(row)
        )
    assert browser.get("/readyz").status_code == 200

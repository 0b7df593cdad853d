"""The database's functions do the same whatever `search_path` their caller has set."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rdservice.database import migrate

Conn = psycopg.Connection[Any]

HOSTILE = """
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.rd_now() RETURNS timestamptz LANGUAGE sql AS $$SELECT '2020-01-01'::timestamptz$$;
CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT '2020-01-01'::timestamptz$$;
CREATE FUNCTION hostile.rdservice_audit_kept_from() RETURNS timestamptz LANGUAGE sql AS
    $$SELECT 'infinity'::timestamptz$$;
CREATE FUNCTION hostile.always(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR hostile.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = hostile.always);
CREATE FUNCTION hostile.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.never);
CREATE FUNCTION hostile.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
CREATE TABLE hostile.rdstation_cache (LIKE public.rdstation_cache);
CREATE TABLE hostile.rdstation_refresh_attempts (LIKE public.rdstation_refresh_attempts);
CREATE SEQUENCE hostile.rdstation_claims;
CREATE TEMPORARY TABLE rdstation_cache (LIKE public.rdstation_cache);
CREATE TEMPORARY TABLE rdstation_refresh_attempts (LIKE public.rdstation_refresh_attempts);
CREATE TEMPORARY SEQUENCE rdstation_claims;
"""
ENTRY = "INSERT INTO public.rdservice_audit (happened_at, action, actor_kind, origin) VALUES ({}, 'x', 'command', '-')"


@pytest.fixture(params=["hostile, pg_catalog, public", "hostile", "pg_temp, hostile, public, pg_catalog"])
def caller(empty_database_url: str, request: pytest.FixtureRequest) -> Iterator[Conn]:
    """A connection whose `search_path` finds same-named functions, operators, tables and sequences first."""
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        migrate.migrate(conn)
        conn.execute(HOSTILE)
        conn.execute(f"SET search_path = {request.param}")
        yield conn


def values(conn: Conn, query: str) -> list[Any]:
    return [value for (value,) in conn.execute(query)]


def test_a_caller_with_a_search_path_of_its_own_cannot_write_an_entry_of_another_time(caller: Conn) -> None:
    caller.execute(ENTRY.format("'2020-01-01'"))
    recent = (
        "SELECT happened_at OPERATOR(pg_catalog.>) pg_catalog.now() - interval '1 minute'"
        " FROM public.rdservice_audit"
    )
    assert values(caller, recent) == [True]


def test_a_caller_with_a_search_path_of_its_own_cannot_remove_a_young_entry(caller: Conn) -> None:
    caller.execute(ENTRY.format("DEFAULT"))
    for statement in ("DELETE FROM public.rdservice_audit", "UPDATE public.rdservice_audit SET action = 'y'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only be appended to"):
            caller.execute(statement)
    assert values(caller, "SELECT action FROM public.rdservice_audit") == ["x"]


def test_the_cached_leads_of_a_connection_go_with_it_whatever_the_search_path(caller: Conn) -> None:
    caller.execute(
        "INSERT INTO public.rdstation_tokens (account_id, access_token, refresh_token, expires_at)"
        " VALUES ('shop', 'a', 'r', pg_catalog.now())"
    )
    caller.execute(
        "INSERT INTO public.rdstation_cache (key, account_id, connection_id, epoch, value, fetched_at, expires_at)"
        " SELECT 'k', account_id, connection_id, 0, 'v', pg_catalog.now(), pg_catalog.now()"
        " FROM public.rdstation_tokens"
    )
    caller.execute("UPDATE public.rdstation_tokens SET connection_id = pg_catalog.gen_random_uuid()")
    assert values(caller, "SELECT account_id FROM public.rdstation_cache") == []


def test_a_claim_is_numbered_by_its_own_sequence_whatever_the_search_path(caller: Conn) -> None:
    caller.execute("SELECT pg_catalog.setval('public.rdstation_claims', 500)")
    assert values(caller, "SELECT public.rd_next_claim(10)") == [501]


def test_every_function_has_a_search_path_of_its_own_but_the_clock_which_needs_none(
    empty_database_url: str,
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        migrate.migrate(conn)
        functions = conn.execute(
            "SELECT proname, proconfig, prosrc FROM pg_proc"
            " WHERE pronamespace = 'public'::regnamespace ORDER BY proname"
        ).fetchall()
        plan = values(conn, "EXPLAIN (VERBOSE, COSTS OFF) SELECT rd_now()")
    own = ["search_path=pg_catalog, public, pg_temp"]
    # A function with settings of its own is not inlined, and then no index serves what is due.
    assert {name: source for name, path, source in functions if path != own} == {
        "rd_now": "SELECT pg_catalog.now()"
    }
    assert len(functions) > 1
    assert "rd_now" not in "".join(plan)


def test_the_functions_search_the_schema_that_the_tables_are_in(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute('CREATE SCHEMA "a Schema"')
        conn.execute('SET search_path = "a Schema"')
        migrate.migrate(conn)
        conn.execute("SET search_path = public")
        conn.execute(ENTRY.format("'2020-01-01'").replace("public.", '"a Schema".'))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only be appended to"):
            conn.execute('DELETE FROM "a Schema".rdservice_audit')

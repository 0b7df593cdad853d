"""Exports against the sandbox: complete, resumable, within the budget, and never quietly incomplete."""

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from rdservice import errors
from rdservice.access import audit
from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.leads.export.run import Export, Wanted, parse_after
from rdservice.services import Services
from tests.support.accounts import BY, connect_account
from tests.support.sandbox_process import SandboxProcess

Conn = psycopg.Connection[Any]
LEADS = 600
NEWSLETTER = "5"
"""Every third lead."""


@pytest.fixture
def exporting(
    make_services: Callable[[Settings], Services], variables: dict[str, str], sandbox: SandboxProcess
) -> Services:
    """A process that may call as often as it likes."""
    sandbox.patch(rate_limit=None, leads=LEADS)
    more = {"RDSTATION_API_URL": sandbox.url, "RDSTATION_RATE_LIMIT": "100000"}
    services = make_services(Settings.from_mapping(variables | more))
    connect_account(services, sandbox, due=False)
    return services


def wanted(**more: Any) -> Wanted:
    usual = {"account_id": "default", "segmentation": None, "format": "ndjson", "full": False, "after": None}
    return Wanted(**(usual | more))


def begin(services: Services, *, pause: Callable[[float], None] = time.sleep, **more: Any) -> Export:
    return Export(services, wanted(**more), pause=pause, timeout_s=10, by=BY)


def exported(services: Services, **more: Any) -> list[dict[str, Any]]:
    export = begin(services, **more)
    try:
        return [lead for batch in export.batches() for lead in batch]
    finally:
        export.close()


def position(lead: dict[str, Any]) -> str:
    return f"{lead['created_at']},{lead['uuid']}"


def no_rest(_seconds: float) -> None:
    return


def test_an_export_holds_every_lead_once_the_newest_first(exporting: Services) -> None:
    leads = exported(exporting)
    assert len(leads) == len({lead["uuid"] for lead in leads}) == LEADS
    assert [lead["created_at"] for lead in leads] == sorted(
        (lead["created_at"] for lead in leads), reverse=True
    )
    assert leads[0].keys() == {"uuid", "name", "email", "last_conversion_date", "created_at"}


def test_a_segmentation_is_exported_by_name_or_id(exporting: Services) -> None:
    by_id = exported(exporting, segmentation=NEWSLETTER)
    assert len(by_id) == LEADS / 3
    assert exported(exporting, segmentation="Assinantes da newsletter") == by_id


def test_an_export_goes_on_behind_the_lead_that_arrived_last(exporting: Services) -> None:
    whole = exported(exporting)
    for arrived in (1, 124, 125, 126, 300, LEADS):
        rest = exported(exporting, after=parse_after(position(whole[arrived - 1])))
        assert rest == whole[arrived:]


def test_an_empty_segmentation_is_an_empty_export(exporting: Services) -> None:
    assert exported(exporting, segmentation="10") == []


def test_full_records_hold_what_rd_station_knows_of_each_lead(
    exporting: Services, sandbox: SandboxProcess
) -> None:
    sandbox.patch(leads=130)
    leads = exported(exporting, full=True)
    assert len(leads) == 130
    assert all(lead["job_title"] and lead["created_at"] and "links" not in lead for lead in leads)
    assert leads == sorted(leads, key=position, reverse=True)


def test_a_lead_that_is_gone_when_its_record_is_read_is_left_out(
    exporting: Services, sandbox: SandboxProcess
) -> None:
    sandbox.patch(
        leads=10, faults=[{"operation": "contact_get", "kind": "status", "status": 404, "count": 2}]
    )
    assert len(exported(exporting, full=True)) == 8


def test_the_columns_of_full_records_are_the_accounts_fields(exporting: Services) -> None:
    export = begin(exporting, full=True, format="csv")
    export.close()
    assert b",job_title,personal_phone,mobile_phone,city,cf_segmento,cf_numero_de_funcionarios,tags," in (
        export.lines.head()
    )


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "html"},
        {"kind": "truncated"},
        {"kind": "drop_before"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_what_fails_in_the_middle_is_tried_again(
    exporting: Services, sandbox: SandboxProcess, fault: dict[str, Any]
) -> None:
    export = begin(exporting, pause=no_rest)
    sandbox.patch(faults=[fault | {"operation": "contacts_list", "count": 3}])
    assert sum(len(batch) for batch in export.batches()) == LEADS


def test_what_goes_on_failing_ends_the_export_with_an_error(
    exporting: Services, sandbox: SandboxProcess
) -> None:
    export = begin(exporting, pause=no_rest)
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 500}])
    with pytest.raises(errors.RdStationFailed):
        list(export.batches())


def test_a_429_in_the_middle_makes_everyone_wait_and_the_export_goes_on(
    exporting: Services, sandbox: SandboxProcess
) -> None:
    export = begin(exporting)
    sandbox.patch(
        faults=[{"operation": "contacts_list", "kind": "status", "status": 429, "retry_after": 1, "count": 1}]
    )
    assert sum(len(batch) for batch in export.batches()) == LEADS
    assert sandbox.calls()["contacts_list"]["429"] == 1


def test_a_token_that_dies_in_the_middle_is_renewed(exporting: Services, sandbox: SandboxProcess) -> None:
    export = begin(exporting)
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 401, "count": 1}])
    assert sum(len(batch) for batch in export.batches()) == LEADS
    assert sandbox.calls()["token_refresh"] == {"200": 1}


def test_a_consent_that_is_taken_back_in_the_middle_ends_the_export(
    exporting: Services, sandbox: SandboxProcess
) -> None:
    export = begin(exporting)
    sandbox.revoke()
    with pytest.raises(errors.ReauthorizationRequired):
        list(export.batches())


def test_another_account_under_the_same_name_ends_the_export(
    exporting: Services, sandbox: SandboxProcess, conn: Conn
) -> None:
    export = begin(exporting)
    conn.execute("UPDATE rdstation_tokens SET connection_id = gen_random_uuid()")
    exporting.memory.forget("default")
    with pytest.raises(errors.NotConnected):
        list(export.batches())


def test_an_export_that_cannot_begin_says_why(exporting: Services, sandbox: SandboxProcess) -> None:
    with pytest.raises(errors.NotConnected):
        begin(exporting, account_id="absent")
    with pytest.raises(errors.NotFound):
        begin(exporting, segmentation="no such name")
    with pytest.raises(errors.NotFound):
        begin(exporting, segmentation="999")
    sandbox.patch(faults=[{"operation": "contacts_list", "kind": "status", "status": 429, "retry_after": 40}])
    with pytest.raises(errors.TooManyRequests) as raised:
        begin(exporting)
    assert raised.value.retry_after_s == 40


def test_an_export_that_finds_the_budget_closed_does_not_wait_for_ever(
    exporting: Services, conn: Conn
) -> None:
    list(begin(exporting, segmentation="10").batches())
    conn.execute("UPDATE rdstation_rate_limits SET closed_until = rd_now() + interval '5 min'")
    with pytest.raises(errors.TooManyRequests):
        begin(exporting, segmentation="10")


def test_a_closed_export_makes_no_further_call(exporting: Services, sandbox: SandboxProcess) -> None:
    export = begin(exporting, full=True)
    batches = export.batches()
    assert next(batches)
    export.close()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is, it ends
        list(batches)
    sandbox.wait_until("in_flight")
    before = sandbox.calls()
    assert sandbox.calls() == before


def test_whoever_takes_leads_away_is_in_the_audit(exporting: Services, conn: Conn) -> None:
    exported(exporting, segmentation=NEWSLETTER, format="csv")
    entry = audit.newest(conn, limit=1)[0]
    assert (entry.action, entry.account_id, entry.subject) == ("leads_exported", "default", NEWSLETTER)
    assert entry.details == {"format": "csv", "full": False, "resumed": False}


def test_nothing_of_an_export_is_kept(exporting: Services, conn: Conn) -> None:
    exported(exporting)
    exported(exporting, segmentation=NEWSLETTER)
    with transaction(exporting.pool) as own:
        rows = own.execute("SELECT count(*) FROM rdstation_cache").fetchone()
    # The list of segmentations, without which "all leads" has no id.
    assert rows == (1,)


def test_beside_an_export_a_caller_is_served(
    make_services: Callable[[Settings], Services], variables: dict[str, str], sandbox: SandboxProcess
) -> None:
    sandbox.patch(rate_limit=20, leads=10_000)
    more = {"RDSTATION_API_URL": sandbox.url, "RDSTATION_RATE_LIMIT": "20"}
    services = make_services(Settings.from_mapping(variables | more))
    connect_account(services, sandbox, due=False)
    export = begin(services)
    access_token = services.access_tokens.usable("default").access_token
    asked = services.rate_budget.spend(
        "default", lambda: services.rdstation.account_info(access_token), timeout_s=0
    )
    assert asked.status == 200
    export.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "2026-05-04T10:00:00-03:00",
        "today,5408c5a3-4711-4f2e-8d0b-13407a3e30f3",
        "2026-05-04T10:00:00,5408c5a3-4711-4f2e-8d0b-13407a3e30f3",
        "2026-05-04T10:00:00-03:00,1",
    ],
)
def test_where_an_export_goes_on_is_a_time_and_a_uuid(text: str) -> None:
    with pytest.raises(errors.InvalidField):
        parse_after(text)


def test_the_place_to_go_on_may_stand_in_a_query() -> None:
    uuid = "5408c5a3-4711-4f2e-8d0b-13407a3e30f3"
    assert parse_after(f"2026-05-04T10:00:00 00:00,{uuid}") == parse_after(
        f"2026-05-04T07:00:00.000-03:00,{uuid}"
    )

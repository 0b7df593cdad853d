"""Segmentations, contacts, paging, and what is generated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sandbox.conftest import Core

ADDRESS = re.compile(r"[a-z]+\.[a-z]+\.[0-9]+@example\.(?:com|org)")
COLLECTIONS = {
    "/platform/emails": "items",
    "/platform/contacts/fields": "fields",
    "/platform/workflows": "workflows",
    "/platform/analytics/conversions": "conversions",
    "/platform/analytics/emails": "emails",
    "/platform/analytics/funnel": "funnel",
    "/platform/analytics/workflow_emails": "workflow_email_statistics",
    "/platform/landing_pages": None,
    "/platform/popups": None,
    "/platform/embeddables": None,
}


@pytest.fixture
def token(core: Core) -> str:
    core.patch(rate_limit=None)
    return str(core.pair()["access_token"])


def contacts(core: Core, token: str, segmentation: int = 1, **query: object) -> list[dict[str, Any]]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    response = core.get(f"/platform/segmentations/{segmentation}/contacts?{asked}", token)
    assert response.status == 200, response.body
    listed: list[dict[str, Any]] = response.json()["contacts"]
    return listed


def test_segmentations_have_the_documented_shape(core: Core, token: str) -> None:
    response = core.get("/platform/segmentations/?page_size=125", token)
    first = response.json()["segmentations"][0]
    assert first["name"] == "Todos os contatos da base de Leads"
    assert first["standard"] is True
    assert first["process_status"] == "processed"
    assert first["links"][0]["rel"] == "SEGMENTATIONS.CONTACTS"
    assert response.headers["pagination-page-size"] == "125"
    assert response.headers["pagination-total-rows"] == str(len(response.json()["segmentations"]))


def test_a_search_finds_names_but_no_standard_segmentation(core: Core, token: str) -> None:
    found = core.get("/platform/segmentations?search=NEWSLETTER", token).json()["segmentations"]
    assert [entry["name"] for entry in found] == ["Assinantes da newsletter"]
    assert found[0]["standard"] is None
    assert core.get("/platform/segmentations?search=Todos", token).json() == {"segmentations": []}


def test_segmentations_can_be_ordered(core: Core, token: str) -> None:
    down = core.get("/platform/segmentations?order=name:desc", token).json()["segmentations"]
    names = [entry["name"] for entry in down]
    assert names == sorted(names, reverse=True)
    assert core.get("/platform/segmentations?order=color:asc", token).status == 400


def test_pages_are_of_25_by_default_and_cover_everything_once(core: Core, token: str) -> None:
    core.patch(leads=260)
    pages = [contacts(core, token, page=page, page_size=125) for page in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [125, 125, 10, 0]
    assert len({contact["uuid"] for page in pages for contact in page}) == 260
    assert len(contacts(core, token)) == 25
    headers = core.get("/platform/segmentations/1/contacts?page=2&page_size=100", token).headers
    assert headers["pagination-total-rows"] == "260"
    assert headers["pagination-page"] == "2"
    assert headers["pagination-page-size"] == "100"


@pytest.mark.parametrize(
    "query", ["page_size=126", "page_size=0", "page=0", "page=x", "page=-1", "page_size="]
)
def test_a_page_out_of_bounds_is_an_error_that_names_the_parameter(
    core: Core, token: str, query: str
) -> None:
    response = core.get(f"/platform/segmentations/1/contacts?{query}", token)
    assert response.status == 400
    assert response.json()["errors"][0]["path"] == f"query.{query.partition('=')[0]}"


@pytest.mark.parametrize("field", ["name", "email", "created_at", "last_conversion_date", "uuid"])
def test_contacts_are_ordered_by_each_field_both_ways(core: Core, token: str, field: str) -> None:
    core.patch(leads=125)
    up = [contact[field].casefold() for contact in contacts(core, token, order=f"{field}:asc", page_size=125)]
    down = [
        contact[field].casefold() for contact in contacts(core, token, order=f"{field}:desc", page_size=125)
    ]
    assert up == sorted(up)
    assert down == up[::-1]
    halves = [contacts(core, token, order=f"{field}:desc", page_size=100, page=page) for page in (1, 2)]
    assert [contact[field].casefold() for half in halves for contact in half] == down


def test_the_stages_share_the_leads_among_them(core: Core, token: str) -> None:
    core.patch(leads=113)
    members = [
        {contact["uuid"] for contact in contacts(core, token, segmentation, page_size=125)}
        for segmentation in (1, 2, 3, 4)
    ]
    assert len(members[0]) == 113
    assert members[1] | members[2] | members[3] == members[0]
    assert sum(map(len, members[1:])) == 113


def test_an_unknown_segmentation_is_not_found(core: Core, token: str) -> None:
    response = core.get("/platform/segmentations/999/contacts", token)
    assert response.status == 404
    assert response.json()["errors"]["error_type"] == "RESOURCE_NOT_FOUND"


def test_leads_come_from_the_seed_and_differ_between_accounts() -> None:
    lists = []
    for seed, account in ((1, "default"), (1, "default"), (2, "default"), (1, "account-2")):
        core = Core(seed=seed)
        lists.append(contacts(core, core.pair(account)["access_token"]))
        core.sandbox.close()
    assert lists[0] == lists[1]
    uuids = [{contact["uuid"] for contact in listed} for listed in lists[1:]]
    assert not uuids[0] & uuids[1]
    assert not uuids[0] & uuids[2]


def test_addresses_belong_to_nobody(core: Core, token: str) -> None:
    core.patch(leads=125)
    for contact in contacts(core, token, page_size=125):
        assert ADDRESS.fullmatch(contact["email"]), contact["email"]


def test_the_last_of_a_million_leads_is_found_by_page_uuid_and_address(core: Core, token: str) -> None:
    core.patch(leads=1_000_000)
    last = contacts(core, token, page=8_000, page_size=125)[-1]
    assert core.get(f"/platform/contacts/{last['uuid']}", token).json()["email"] == last["email"]
    by_address = core.get(f"/platform/contacts/email:{last['email'].upper()}", token)
    assert by_address.json()["uuid"] == last["uuid"]
    core.patch(leads=999_999)
    assert core.get(f"/platform/contacts/{last['uuid']}", token).status == 404


def test_a_contact_has_the_documented_fields(core: Core, token: str) -> None:
    uuid = contacts(core, token)[0]["uuid"]
    contact = core.get(f"/platform/contacts/uuid:{uuid}", token).json()
    assert contact == core.get(f"/platform/contacts/{uuid}", token).json()
    expected = {
        "uuid",
        "email",
        "name",
        "job_title",
        "bio",
        "website",
        "city",
        "tags",
        "legal_bases",
        "links",
    }
    assert expected <= set(contact)
    assert any(name.startswith("cf_") for name in contact)


@pytest.mark.parametrize(
    "which", ["email:nobody@example.com", "no-uuid", "00000000-0000-4000-8000-000000000000"]
)
def test_an_unknown_contact_is_not_found(core: Core, token: str, which: str) -> None:
    response = core.get(f"/platform/contacts/{which}", token)
    assert response.status == 404
    assert response.json() == {
        "errors": {"error_type": "RESOURCE_NOT_FOUND", "error_message": "Lead not found."}
    }


def test_patch_changes_a_lead_everywhere_and_over_a_restart(tmp_path: Path) -> None:
    core = Core(tmp_path / "state.db")
    token = core.pair()["access_token"]
    lead = contacts(core, token)[3]
    changes = {"name": "Zuleica", "email": "zuleica@example.com", "cf_segmento": "Outro"}
    assert core.send("PATCH", f"/platform/contacts/uuid:{lead['uuid']}", token, changes).status == 200
    core.reopen()
    assert core.get(f"/platform/contacts/email:{lead['email']}", token).status == 404
    found = core.get("/platform/contacts/email:zuleica@example.com", token).json()
    assert (found["uuid"], found["cf_segmento"]) == (lead["uuid"], "Outro")
    assert contacts(core, token)[3]["name"] == "Zuleica"
    assert contacts(core, token, order="name:desc")[0]["uuid"] == lead["uuid"]
    core.sandbox.close()


def test_patch_by_an_unknown_address_makes_a_contact(core: Core, token: str) -> None:
    created = core.send("PATCH", "/platform/contacts/email:nova%2Bx@example.com", token, {"name": "Nova"})
    assert created.status == 200
    assert created.json()["email"] == "nova+x@example.com"
    everyone = core.get("/platform/segmentations/1/contacts?order=created_at:desc", token)
    assert everyone.headers["pagination-total-rows"] == "1001"
    assert everyone.json()["contacts"][0]["uuid"] == created.json()["uuid"]
    unknown = core.send("PATCH", "/platform/contacts/uuid:00000000-0000-4000-8000-000000000000", token, {})
    assert unknown.status == 404


def test_the_identifier_may_not_be_in_the_body(core: Core, token: str) -> None:
    response = core.send("PATCH", "/platform/contacts/email:a@example.com", token, {"email": "b@example.com"})
    assert response.status == 400
    assert response.json()["errors"]["error_type"] == "CONFLICTING_FIELD"


def test_wrong_fields_are_named(core: Core, token: str) -> None:
    response = core.send(
        "PATCH", "/platform/contacts/email:a@example.com", token, {"name": 1, "tags": "x", "y": 0}
    )
    assert response.status == 400
    assert sorted(response.json()["errors"]) == ["name", "tags", "y"]
    assert response.json()["errors"]["name"] == [
        {"error_type": "MUST_BE_STRING", "error_message": "Name must be string."}
    ]


def test_post_creates_a_contact_once(core: Core, token: str) -> None:
    body = {"email": "nova@example.com", "name": "Nova"}
    assert core.send("POST", "/platform/contacts", token, body).status == 200
    again = core.send("POST", "/platform/contacts", token, body)
    assert again.json()["errors"]["error_type"] == "EMAIL_ALREADY_IN_USE"
    assert core.send("POST", "/platform/contacts", token, {"name": "Sem"}).status == 400


def test_an_account_does_not_see_the_contacts_of_another(core: Core, token: str) -> None:
    core.send("POST", "/platform/contacts", token, {"email": "nova@example.com"})
    stranger = core.pair("account-2")["access_token"]
    assert core.get("/platform/contacts/email:nova@example.com", stranger).status == 404


def test_a_conversion_makes_or_changes_the_contact(core: Core, token: str) -> None:
    lead = contacts(core, token)[0]
    for address in (lead["email"], "nova@example.com"):
        payload = {"conversion_identifier": "e-book", "email": address, "name": "Convertida"}
        event = {"event_type": "CONVERSION", "event_family": "CDP", "payload": payload}
        response = core.send("POST", "/platform/events?event_type=conversion", token, event)
        assert response.status == 200
        assert list(response.json()) == ["event_uuid"]
    newest = contacts(core, token, order="last_conversion_date:desc", page_size=2)
    assert {contact["email"] for contact in newest} == {lead["email"], "nova@example.com"}
    assert {contact["name"] for contact in newest} == {"Convertida"}


def test_an_unknown_event_type_is_an_invalid_option(core: Core, token: str) -> None:
    event = {"event_type": "PARTY", "event_family": "CDP", "payload": {"email": "a@example.com"}}
    error = core.send("POST", "/platform/events", token, event).json()["errors"][0]
    assert (error["error_type"], error["path"]) == ("INVALID_OPTION", "$.event_type")
    assert "CONVERSION" in error["validation_rules"]["valid_options"]


def test_the_funnel_of_a_contact_can_be_read_and_changed(core: Core, token: str) -> None:
    path = f"/platform/contacts/email:{contacts(core, token)[5]['email']}/funnels/default"
    before = core.get(path, token).json()
    assert before["lifecycle_stage"] == "Lead"
    changed = core.send("PUT", path, token, {"lifecycle_stage": "Client", "opportunity": True})
    assert changed.json() == before | {"lifecycle_stage": "Client", "opportunity": True}
    assert core.send("PUT", path, token, {"lifecycle_stage": "Friend"}).status == 400


@pytest.mark.parametrize("path", COLLECTIONS)
def test_other_collections_answer_with_rows(core: Core, token: str, path: str) -> None:
    response = core.get(path, token)
    assert response.status == 200
    name = COLLECTIONS[path]
    rows = response.json() if name is None else response.json()[name]
    assert len(rows) >= 3
    assert len({str(row) for row in rows}) == len(rows)


def test_analytics_keep_to_the_period(core: Core, token: str) -> None:
    target = "/platform/analytics/funnel?start_date=2026-01-01&end_date=2026-01-03"
    days = [row["reference_day"] for row in core.get(target, token).json()["funnel"]]
    assert days == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert core.get("/platform/analytics/emails?start_date=yesterday", token).status == 400


@pytest.mark.parametrize("path", ["/platform/nothing", "/marketing", "/nothing", "/"])
def test_an_unknown_route_is_a_json_404(core: Core, token: str, path: str) -> None:
    response = core.get(path, token)
    assert response.status == 404
    assert response.json()["errors"]["error_type"] == "RESOURCE_NOT_FOUND"


def test_a_known_route_with_another_method_is_a_405(core: Core, token: str) -> None:
    response = core.send("DELETE", "/platform/segmentations", token, {})
    assert response.status == 405
    assert response.headers["Allow"] == "GET"


@pytest.mark.parametrize("by", ["uuid:{uuid}", "email:{email}", "{uuid}"])
def test_a_deleted_lead_is_nowhere_and_the_others_stay_in_order(tmp_path: Path, by: str) -> None:
    core = Core(tmp_path / "state.db")
    core.patch(rate_limit=None, leads=40)
    token = str(core.pair()["access_token"])
    before = contacts(core, token, page_size=125)
    gone = before[7]
    path = "/platform/contacts/" + by.format(**gone)
    deleted = core.send("DELETE", path, token, None)
    assert (deleted.status, deleted.body) == (204, b"")
    for _ in range(2):
        for order in ("", "&order=name:asc"):
            target = f"/platform/segmentations/1/contacts?page_size=125{order}"
            listed = core.get(target, token)
            assert listed.headers["pagination-total-rows"] == "39"
            kept = [contact for contact in before if contact != gone]
            key = (lambda contact: contact["name"].casefold()) if order else (lambda _: 0)
            found = [contact["uuid"] for contact in listed.json()["contacts"]]
            assert found == [contact["uuid"] for contact in sorted(kept, key=key)]
        for identifier in (gone["uuid"], f"uuid:{gone['uuid']}", f"email:{gone['email']}"):
            assert core.get(f"/platform/contacts/{identifier}", token).status == 404
        assert core.send("DELETE", path, token, None).status == 404
        core.reopen()
    core.sandbox.close()


def test_a_deleted_contact_may_come_back_as_another(core: Core, token: str) -> None:
    for uuids in range(1, 3):
        assert core.send("PATCH", "/platform/contacts/email:nova@example.com", token, {}).status == 200
        first = core.get("/platform/contacts/email:nova@example.com", token).json()["uuid"]
        assert core.send("DELETE", "/platform/contacts/email:nova@example.com", token, None).status == 204
        assert core.get(f"/platform/contacts/{first}", token).status == 404, uuids

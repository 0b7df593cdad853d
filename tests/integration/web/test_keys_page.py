"""The page of API keys."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from rdservice.access import audit, keys
from rdservice.web.text.key_texts import scope_words
from tests.integration.web.conftest import EMAIL, PASSWORD
from tests.support.browser import Browser

Conn = psycopg.Connection[Any]


def made(page: str) -> str:
    found = re.search(r'name="key" type="text" value="(rdk_[^"]+)"', page)
    assert found
    return found[1]


def test_a_key_is_made_shown_once_and_works(signed_in: Browser, conn: Conn) -> None:
    response = signed_in.submit("/keys", "/keys", name=" website ", scopes="tokens:status")
    assert (response.status_code, response.headers["Cache-Control"]) == (201, "no-store")
    key = made(response.text)
    assert "It is shown this once" in response.text
    assert "Location" not in response.headers
    assert not [cookie for cookie in response.headers.getlist("Set-Cookie") if key[13:] in cookie]
    program = Browser(signed_in.client.application, accept="*/*")
    assert program.get("/rd/tokens", {"Authorization": f"Bearer {key}"}).status_code == 200
    page = signed_in.get("/keys").text
    assert key[13:] not in page
    assert f'data-key="{key[4:12]}"' in page
    assert "<strong>website</strong>" in page
    assert f"by {EMAIL}" in page
    assert "See which accounts are connected" in page
    entry = audit.newest(conn, limit=1)[0]
    assert (entry.action, entry.actor_name, entry.subject) == ("key_created", EMAIL, key[4:12])
    assert entry.details == {"name": "website", "scopes": ["tokens:status"]}


def test_a_key_may_have_several_scopes(signed_in: Browser, conn: Conn) -> None:
    token = signed_in.csrf_token("/keys")
    signed_in.open(
        "POST", "/keys", data={"csrf_token": token, "name": "x", "scopes": ["api:call", "tokens:read"]}
    )
    (record,) = keys.list_all(conn)
    assert record.scopes == ["tokens:read", "api:call"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "  ", "scopes": "leads:read"}, "The name must have 1 to 100 readable characters"),
        ({"name": "x" * 101, "scopes": "leads:read"}, "The name must have 1 to 100 readable characters"),
        ({"name": "a\0b", "scopes": "leads:read"}, "The name must have 1 to 100 readable characters"),
        ({"name": "shop"}, "Choose at least one permission."),
        ({"name": "shop", "scopes": "everything"}, "Choose at least one permission."),
    ],
)
def test_a_form_that_cannot_be_used_comes_back_with_what_was_typed(
    signed_in: Browser, conn: Conn, fields: dict[str, str], message: str
) -> None:
    response = signed_in.submit("/keys", "/keys", **fields)
    assert response.status_code == 422
    assert message in response.text
    if fields.get("scopes") == "leads:read":
        assert 'value="leads:read" checked' in response.text
        assert 'aria-invalid="true"' in response.text
    else:
        assert 'value="shop"' in response.text
    assert keys.list_all(conn) == []


def test_a_key_is_revoked_after_a_question(
    signed_in: Browser, conn: Conn, make_key: Callable[..., str]
) -> None:
    key = make_key("tokens:status")
    program = Browser(signed_in.client.application, accept="*/*")
    headers = {"Authorization": f"Bearer {key}"}
    assert program.get("/rd/tokens", headers).status_code == 200
    page = signed_in.get("/keys").text
    assert "In use" in page
    assert "Last used" in page
    path = f"/keys/{key[4:12]}/revoke"
    assert f'href="{path}"' in page
    assert "Revoke the key “a program”?" in signed_in.get(path).text
    assert program.get("/rd/tokens", headers).status_code == 200, "asking revokes nothing"
    response = signed_in.submit(path, path)
    assert (response.status_code, response.location) == (303, "/keys")
    page = signed_in.get("/keys").text
    assert f"The key {key[4:12]} is revoked" in page
    assert f'href="{path}"' not in page
    (record,) = keys.list_all(conn)
    assert record.revoked_at is not None
    assert audit.newest(conn, limit=1)[0].action == "key_revoked"
    assert signed_in.get(path).status_code == 404, "it cannot be revoked again"


@pytest.mark.parametrize("key_id", ["absent", "aaaaaaaa", "%00", "rdk_aaaaaaaa", "é"])
def test_a_key_that_does_not_exist_is_not_found(signed_in: Browser, conn: Conn, key_id: str) -> None:
    path = f"/keys/{key_id}/revoke"
    assert signed_in.get(path).status_code == 404
    assert signed_in.submit(path, "/keys").status_code == 404
    assert audit.newest(conn, limit=1)[0].action == "logged_in"


def test_names_are_escaped(signed_in: Browser) -> None:
    response = signed_in.submit("/keys", "/keys", name="<b>&", scopes="leads:read")
    assert "Key of &lt;b&gt;&amp;" in response.text
    page = signed_in.get("/keys").text
    assert "<strong>&lt;b&gt;&amp;</strong>" in page


def test_every_scope_has_words_and_a_box(app: Flask, signed_in: Browser) -> None:
    with app.test_request_context():
        assert list(scope_words()) == list(keys.SCOPES)
    page = signed_in.get("/keys").text
    assert re.findall(r'type="checkbox" value="([^"]+)"', page) == list(keys.SCOPES)


def test_keys_of_the_command_line_and_portuguese(app: Flask, signed_in: Browser, conn: Conn) -> None:
    keys.create(conn, "loja", ["leads:read"], created_by=keys.COMMAND_LINE)
    assert "by command line" in signed_in.get("/keys").text
    portuguese = Browser(app, language="pt-BR")
    portuguese.log_in(EMAIL, PASSWORD)
    page = portuguese.get("/keys").text
    assert "<h1>Chaves de API</h1>" in page
    assert "por linha de comando" in page
    assert "Ainda não usada" in page

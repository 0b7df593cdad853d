"""The search itself finds what it looks for."""

import base64
import json
from urllib.parse import quote

import pytest

from tests.support.leaks.planted import Planted

SECRET = "Zk3_9vQ-7hT2.w8Lr5Xc0pMd4Sy6Bf1Nj"
EMAIL = "planted+ana@leads.example.com"


@pytest.fixture
def planted() -> Planted:
    found = Planted()
    found.add(secret=SECRET, email=EMAIL)
    return found


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        f"Bearer {SECRET}",
        SECRET[:20],
        SECRET[-18:],
        f"{SECRET[:15]}\n    {SECRET[15:]}",
        f"{SECRET[:15]}\\n{SECRET[15:]}",
        base64.b64encode(f"client-id:{SECRET}".encode()).decode(),
        base64.b64encode(f"user:{SECRET}:x".encode()).decode(),
        base64.b64encode(f"a {SECRET}".encode()).decode(),
        SECRET.encode().hex(),
        json.dumps({"body": json.dumps({"secret": SECRET})}),
    ],
)
def test_a_value_is_found_in_every_form(planted: Planted, written: str) -> None:
    (found,) = planted.found_in(f"2026-01-01 INFO before {written} after")
    assert found.name == "secret"
    assert SECRET not in str(found)


@pytest.mark.parametrize("written", [EMAIL, quote(EMAIL, safe=""), EMAIL.upper()])
def test_a_person_is_found_in_every_form(planted: Planted, written: str) -> None:
    (found,) = planted.found_in(f"GET /rd/leads/email/{written} 200")
    assert found.name == "email"


def test_nothing_is_found_where_nothing_is(planted: Planted) -> None:
    assert planted.found_in("refresh of account 'default': stored (claim 7, HTTP 200, no error)") == []


def test_what_is_meant_to_be_there_is_left_out_and_nothing_else(planted: Planted) -> None:
    assert planted.found_in(f"{EMAIL} is logged in", shown=["email"]) == []
    (found,) = planted.found_in(f"{EMAIL} is logged in with {SECRET}", shown=["email"])
    assert found.name == "secret"

"""Wherever `next` points: the redirect after a login stays on this service, as browsers read it (WHATWG URL)."""

import ada_url
from flask import Flask, redirect
from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.web.http import paths
from rdservice.web.pages import sign_in
from tests.support.outside_data import ODD_TEXTS

ORIGIN = "https://app.example.com"
PIECES = [
    "/",
    "\\",
    "//",
    "evil.example",
    "http:",
    "javascript:",
    "@",
    ":",
    "?",
    "#",
    ".",
    "..",
    "%2f",
    "%5c",
    "%09",
    "\t",
]
PIECES += [
    "\n",
    "\r",
    " ",
    "\0",
    "rd",
    "login",
    "rd/login",
    "?account_id=",
    "%00",
    "%ff",
    "[",
    "]",
    "é",
    "\u2028",
    "。",
    "／",
]
TARGETS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=7).map("".join), st.text(), ODD_TEXTS)
TARGETS = st.one_of(TARGETS, TARGETS.map("/{}".format), TARGETS.map("/rd/login{}".format))


def where_a_browser_goes(location: str) -> ada_url.URL:
    """Return the address that a browser opens for a Location header of the response to the form."""
    return ada_url.URL(location, base=f"{ORIGIN}/login")


@given(target=TARGETS)
@example(target="/\\evil.example")
@example(target="/\t/evil.example")
@example(target="/.//evil.example")
@example(target="/%5cevil.example")
def test_a_local_path_leads_to_this_origin(target: str) -> None:
    path = paths.local_path(target)
    if path is not None:
        assert path == target
        assert where_a_browser_goes(path).origin == ORIGIN


@given(target=TARGETS)
@example(target="/rd/login?account_id=//evil.example")
@example(target="/[")
def test_a_login_leads_to_this_origin_whatever_was_asked_for(app: Flask, target: str) -> None:
    with app.test_request_context("/login", base_url=ORIGIN):
        location = redirect(sign_in._destination(target), code=303).headers["Location"]
    assert location.isascii()
    url = where_a_browser_goes(location)
    assert url.origin == ORIGIN
    # That one would send a form's redirect on to RD Station, which the pages' policy forbids.
    assert url.pathname != "/rd/login"

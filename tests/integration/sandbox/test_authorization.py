"""Consent page, codes, tokens, revocation."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
import requests

from sandbox.core import Client, Sandbox
from tests.integration.sandbox.conftest import CLIENT_ID, REDIRECT_URI, Core
from tests.support.sandbox_process import SandboxProcess

ACCESS_DENIED = {"errors": {"error_type": "ACCESS_DENIED", "error_message": "Wrong credentials provided."}}
UNAUTHORIZED = {"errors": {"error_type": "UNAUTHORIZED", "error_message": "Invalid token."}}
INVALID_REFRESH_TOKEN = {
    "errors": {
        "error_type": "INVALID_REFRESH_TOKEN",
        "error_message": "The provided refresh token is invalid or was revoked.",
    }
}
EXPIRED_CODE_GRANT = {
    "errors": {
        "error_type": "EXPIRED_CODE_GRANT",
        "error_message": "The authorization code grant has expired.",
    }
}
EXPIRED_CHALLENGE = (
    'Bearer realm="https://api.rd.services/", error="expired_token", '
    'error_description="The access token expired"'
)


def dialog_url(**parameters: str) -> str:
    return "/auth/dialog?" + urlencode({"client_id": CLIENT_ID, "redirect_uri": REDIRECT_URI, **parameters})


def test_the_whole_flow_from_consent_to_leads_works_over_http(sandbox: SandboxProcess) -> None:
    page = requests.get(sandbox.url + dialog_url(state="a+b/ç", scope="contacts"), timeout=10)
    assert page.status_code == 200
    assert "Autorizar</button>" in page.text
    form = {"client_id": CLIENT_ID, "redirect_uri": REDIRECT_URI, "state": "a+b/ç"}
    consented = requests.post(f"{sandbox.url}/auth/dialog", data=form, allow_redirects=False, timeout=10)
    assert consented.status_code == 302
    assert consented.headers["Location"].startswith(REDIRECT_URI + "?")
    back = parse_qs(urlsplit(consented.headers["Location"]).query)
    assert back["state"] == ["a+b/ç"]

    credentials = {"client_id": CLIENT_ID, "client_secret": "client-secret"}
    response = requests.post(
        f"{sandbox.url}/auth/token?token_by=code", json={**credentials, "code": back["code"][0]}, timeout=10
    )
    assert response.status_code == 200
    assert sorted(response.json()) == ["access_token", "expires_in", "refresh_token"]
    assert response.json()["expires_in"] == 86_400
    bearer = {"Authorization": f"Bearer {response.json()['access_token']}"}
    info = requests.get(f"{sandbox.url}/marketing/account_info", headers=bearer, timeout=10)
    assert info.json()["name"].endswith("(default)")
    listed = requests.get(f"{sandbox.url}/platform/segmentations/1/contacts", headers=bearer, timeout=10)
    assert len(listed.json()["contacts"]) == 25
    assert listed.headers["pagination-total-rows"] == "1000"


def test_the_consent_page_has_one_form_with_one_button_and_a_link_to_refuse(core: Core) -> None:
    response = core.call("GET", dialog_url(state='x"<y', account="account-2"))
    page = response.body.decode()
    assert page.count("<form") == page.count("<button") == page.count("<a ") == 1
    assert 'lang="pt-BR"' in page
    assert re.findall(r'<option value="([^"]+)" selected>', page) == ["account-2"]
    assert 'value="x&quot;&lt;y"' in page
    assert f'href="{REDIRECT_URI}?error=access_denied' in page
    assert "form-action 'self' http://localhost:8000" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("preset", ["default", "account-3", "account-31"])
def test_the_consent_page_lets_a_person_choose_among_accounts_by_name(core: Core, preset: str) -> None:
    page = core.call("GET", dialog_url(account=preset)).body.decode()
    options = re.findall(r'<option value="([^"]+)"(?: selected)?>[^<]+\(([^)]+)\)</option>', page)
    assert {"default", "account-2", preset} <= {account for account, _ in options}
    assert all(account == named for account, named in options)


def test_consent_is_for_the_account_default_unless_another_is_asked_for(core: Core) -> None:
    names = {
        core.get("/marketing/account_info", core.pair(account)["access_token"])
        .json()["name"]
        .partition("(")[2]
        for account in ("default", "account-2", "account-31")
    }
    assert names == {"default)", "account-2)", "account-31)"}


@pytest.mark.parametrize("account", ["account-1", "account-0", "account-02", "other", ""])
def test_an_account_that_does_not_exist_gets_no_consent_page(core: Core, account: str) -> None:
    assert core.call("GET", dialog_url(account=account)).status == 400


@pytest.mark.parametrize(
    "asked", [REDIRECT_URI + "/", REDIRECT_URI.replace("localhost", "127.0.0.1"), REDIRECT_URI + "?a=b", ""]
)
def test_a_redirect_uri_is_compared_letter_by_letter_and_the_page_names_both(core: Core, asked: str) -> None:
    response = core.call("GET", dialog_url(redirect_uri=asked))
    assert response.status == 400
    page = response.body.decode()
    assert f"Registrada: {REDIRECT_URI}<" in page
    assert f"Pedida: {asked or '(nenhuma)'}<" in page
    assert "<form" not in page


def test_the_older_parameter_redirect_url_is_accepted(core: Core) -> None:
    target = "/auth/dialog?" + urlencode({"client_id": CLIENT_ID, "redirect_url": REDIRECT_URI})
    assert core.call("GET", target).status == 200


def test_an_unknown_client_gets_no_consent_page_and_no_code(core: Core) -> None:
    assert core.call("GET", dialog_url(client_id="stranger")).status == 401
    form = urlencode({"client_id": "stranger", "redirect_uri": REDIRECT_URI}).encode()
    assert core.sandbox.handle("POST", "/auth/dialog", body=form).status == 401


def test_a_code_dies_at_its_first_use(core: Core) -> None:
    code = core.code()
    assert core.token(code=code).status == 200
    again = core.token(code=code)
    assert (again.status, again.json()) == (401, EXPIRED_CODE_GRANT)


def test_a_code_lasts_one_hour(core: Core) -> None:
    early, late = core.code(), core.code()
    core.now += 3_599
    assert core.token(code=early).status == 200
    core.now += 1
    response = core.token(code=late)
    assert (response.status, response.json()) == (401, EXPIRED_CODE_GRANT)


@pytest.mark.parametrize(
    "wrong", [{"client_secret": "third-secret"}, {"client_id": "stranger"}, {"code": "unknown"}], ids=str
)
def test_wrong_credentials_and_unknown_codes_are_denied_alike_and_spend_no_code(
    core: Core, wrong: dict[str, str]
) -> None:
    code = core.code()
    response = core.token(**{"code": code, **wrong})
    assert (response.status, response.json()) == (401, ACCESS_DENIED)
    assert core.token(code=code).status == 200


def test_every_secret_of_the_list_is_accepted(core: Core) -> None:
    for secret in ("first-secret", "second-secret"):
        assert core.token(client_secret=secret, code=core.code()).status == 200


def test_an_access_token_is_a_long_jwt_with_the_documented_claims(core: Core) -> None:
    core.patch(access_token_lifetime=600, scope="contacts x", aud="https://app.rdstation.com.br/api/v2/")
    pair = core.pair()
    assert len(pair["access_token"]) > 300
    assert pair["expires_in"] == 600
    claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
    assert claims["iss"] == "https://api.rd.services"
    assert claims["aud"] == "https://app.rdstation.com.br/api/v2/"
    assert claims["scope"] == "contacts x"
    assert (claims["iat"], claims["exp"]) == (int(core.now), int(core.now) + 600)
    assert claims["sub"].endswith("@clients")
    # RD Station's API itself takes tokens of any audience.
    assert core.get("/marketing/account_info", pair["access_token"]).status == 200


@pytest.mark.parametrize("more", [{}, {"grant_type": "refresh_token"}], ids=str)
def test_a_refresh_without_rotation_gives_a_new_access_token_and_keeps_the_refresh_token(
    core: Core, more: dict[str, str]
) -> None:
    pair = core.pair()
    for _ in range(2):
        response = core.token(refresh_token=pair["refresh_token"], **more)
        assert response.status == 200
        assert response.json()["refresh_token"] == pair["refresh_token"]
        assert response.json()["access_token"] != pair["access_token"]
    assert core.get("/marketing/account_info", response.json()["access_token"]).status == 200
    assert core.get("/marketing/account_info", pair["access_token"]).status == 200


def test_the_answer_to_a_refresh_may_leave_the_refresh_token_out(core: Core) -> None:
    pair = core.pair()
    core.patch(repeat_refresh_token=False)
    assert "refresh_token" not in core.token(refresh_token=pair["refresh_token"]).json()
    assert core.token(refresh_token=pair["refresh_token"]).status == 200


def test_with_rotation_a_refresh_token_works_once(core: Core) -> None:
    core.patch(rotate_refresh_tokens=True)
    first = core.pair()["refresh_token"]
    second = core.token(refresh_token=first).json()["refresh_token"]
    assert second != first
    reused = core.token(refresh_token=first)
    assert (reused.status, reused.json()) == (401, INVALID_REFRESH_TOKEN)
    assert core.token(refresh_token=second).status == 200


def test_wrong_credentials_at_a_refresh_are_no_dead_token(core: Core) -> None:
    pair = core.pair()
    response = core.token(refresh_token=pair["refresh_token"], client_secret="wrong")
    assert (response.status, response.json()) == (401, ACCESS_DENIED)
    assert core.token(refresh_token=pair["refresh_token"]).status == 200


def test_the_client_secrets_that_are_accepted_can_be_changed(core: Core) -> None:
    refresh_token = core.pair()["refresh_token"]

    def accepted(*secrets: str) -> list[bool]:
        return [
            core.token(refresh_token=refresh_token, client_secret=secret).status == 200 for secret in secrets
        ]

    core.patch(client_secrets=["new-secret", "first-secret"])
    assert accepted("first-secret", "second-secret", "new-secret") == [True, False, True]
    core.patch(client_secrets=["new-secret"])
    assert accepted("first-secret", "new-secret") == [False, True]
    core.patch(client_secrets=None)
    assert accepted("first-secret", "second-secret", "new-secret") == [True, True, False]
    for wrong in ("new-secret", [""], [1]):
        assert core.call("PATCH", "/_sandbox", {"client_secrets": wrong}).status == 422


def test_a_refresh_token_that_was_never_given_is_invalid(core: Core) -> None:
    response = core.token(refresh_token="made-up")
    assert (response.status, response.json()) == (401, INVALID_REFRESH_TOKEN)


@pytest.mark.parametrize("missing", ["client_id", "client_secret", "code"])
def test_a_token_request_without_a_member_names_it(core: Core, missing: str) -> None:
    response = core.token(**{"code": "x", missing: None})
    assert response.status == 400
    assert response.json()["errors"][0]["path"] == f"body.{missing}"


def test_a_token_request_must_be_json(core: Core) -> None:
    form = urlencode({"client_id": CLIENT_ID, "client_secret": "first-secret", "code": core.code()}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert core.sandbox.handle("POST", "/auth/token", headers, form).status == 415
    assert (
        core.sandbox.handle("POST", "/auth/token", {"Content-Type": "application/json"}, b"{").status == 400
    )
    assert core.call("GET", "/auth/token").status == 405


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'"x"', b"\xff", b'{"code": NaN}', b'{"code": "\\ud800"}', b"[" * 100_000],
    ids=len,
)
def test_a_body_that_is_no_json_object_is_a_bad_request(core: Core, body: bytes) -> None:
    response = core.sandbox.handle("POST", "/auth/token", {"Content-Type": "application/json"}, body)
    assert response.status == 400
    assert response.json()["errors"]["error_type"] == "BAD_REQUEST"


def test_a_query_in_the_registered_redirect_uri_is_kept() -> None:
    registered = "http://localhost:8000/rd/callback?tenant=a%26b"
    sandbox = Sandbox(Client(id=CLIENT_ID, secrets=("secret",), redirect_uri=registered))
    form = urlencode({"client_id": CLIENT_ID, "redirect_uri": registered, "state": "s"}).encode()
    location = sandbox.handle("POST", "/auth/dialog", body=form).headers["Location"]
    sandbox.close()
    assert location.startswith(registered + "&code=")
    assert parse_qs(urlsplit(location).query)["tenant"] == ["a&b"]


def test_an_expired_access_token_is_told_apart_by_a_header(core: Core) -> None:
    token = core.pair()["access_token"]
    core.now += 86_399
    assert core.get("/marketing/account_info", token).status == 200
    core.now += 1
    expired = core.get("/marketing/account_info", token)
    assert (expired.status, expired.json()) == (401, UNAUTHORIZED)
    assert expired.headers["WWW-Authenticate"] == EXPIRED_CHALLENGE
    core.patch(amazon_gateway=True)
    renamed = core.get("/marketing/account_info", token).headers
    assert renamed["x-amzn-remapped-www-authenticate"] == EXPIRED_CHALLENGE
    assert "WWW-Authenticate" not in renamed


@pytest.mark.parametrize("authorization", ["Bearer not-a-jwt", "Bearer", "Basic YTpi", ""])
def test_any_other_bad_token_is_unauthorized_without_that_header(core: Core, authorization: str) -> None:
    response = core.call("GET", "/platform/segmentations", authorization=authorization)
    assert (response.status, response.json()) == (401, UNAUTHORIZED)
    assert "WWW-Authenticate" not in response.headers


def test_a_token_signed_by_somebody_else_is_unauthorized(core: Core) -> None:
    claims = jwt.decode(core.pair()["access_token"], options={"verify_signature": False})
    forged = jwt.encode(claims, "k" * 64, algorithm="HS256")
    assert core.get("/marketing/account_info", forged).status == 401


def test_replaced_access_tokens_can_be_made_to_die(core: Core) -> None:
    pair = core.pair()
    core.patch(replaced_access_tokens_die=True)
    new = core.token(refresh_token=pair["refresh_token"]).json()["access_token"]
    old = core.get("/marketing/account_info", pair["access_token"])
    assert (old.status, old.json()) == (401, UNAUTHORIZED)
    assert "WWW-Authenticate" not in old.headers
    assert core.get("/marketing/account_info", new).status == 200


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_revoking_either_token_ends_both_of_this_consent_only(core: Core, which: str) -> None:
    pair, other = core.pair(), core.pair("account-2")
    form = urlencode({"token": pair[which], "token_type_hint": which}).encode()
    headers = {
        "Authorization": f"Bearer {pair['access_token']}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    response = core.sandbox.handle("POST", "/auth/revoke", headers, form)
    assert (response.status, response.json()) == (200, {})
    assert core.get("/marketing/account_info", pair["access_token"]).json() == UNAUTHORIZED
    assert core.token(refresh_token=pair["refresh_token"]).json() == INVALID_REFRESH_TOKEN
    assert core.token(refresh_token=other["refresh_token"]).status == 200
    assert core.sandbox.handle("POST", "/auth/revoke", headers, form).status == 401


def test_nobody_revokes_another_account(core: Core) -> None:
    mine, theirs = core.pair(), core.pair("account-2")
    headers = {
        "Authorization": f"Bearer {mine['access_token']}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    form = urlencode({"token": theirs["refresh_token"]}).encode()
    assert core.sandbox.handle("POST", "/auth/revoke", headers, form).status == 200
    assert core.token(refresh_token=theirs["refresh_token"]).status == 200


def test_tokens_are_not_stored_in_plain(tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    core = Core(state)
    pair, code = core.pair(), core.code()
    core.sandbox.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (pair["refresh_token"], pair["access_token"], code):
        assert secret.encode() not in stored


def test_an_account_whose_plan_lacks_the_api_is_forbidden_everything_but_tokens(
    sandbox: SandboxProcess,
) -> None:
    sandbox.patch(api_access=False)
    pair = sandbox.pair()
    bearer = {"Authorization": f"Bearer {pair['access_token']}"}
    response = requests.get(f"{sandbox.url}/platform/segmentations", headers=bearer, timeout=10)
    assert (response.status_code, response.json()["errors"]["error_type"]) == (403, "FORBIDDEN")

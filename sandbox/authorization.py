"""The routes under /auth (authorization, codes, tokens, revocation), and the account of a Bearer token."""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import uuid4

import jwt

from sandbox import pages
from sandbox.errors import ApiError, cannot_be_null, expired_access_token
from sandbox.generated import account_name
from sandbox.messages import ApiResponse, Request, json_response
from sandbox.state import State
from sandbox.store import Grant

CODE_LIFETIME_S = 3_600
ISSUER = "https://api.rd.services"
ALGORITHM = "HS256"
OFFERED = ("default", *(f"account-{number}" for number in range(2, 9)))
"""The accounts that the authorization page offers, besides the one that its URL names."""
ACCOUNT = re.compile(r"default|account-(?:[2-9]|[1-9][0-9]{1,8})")
# Only signature and form: the sandbox has its own clock, and RD Station's API accepts tokens of any audience and scope.
DECODE_OPTIONS: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False, "require": ["exp"]}


def dialog(state: State, request: Request) -> ApiResponse:
    """`GET /auth/dialog`: the authorization page. `POST`: authorized, so redirect to the app with a code."""
    asked = request.form if request.method == "POST" else request.query
    client = state.client
    # Public clients call the parameter redirect_url, RD Station's pages redirect_uri.
    redirect_uri = asked.get("redirect_uri", asked.get("redirect_url", ""))
    account = asked.get("account", "default")
    if asked.get("client_id") != client.id:
        return pages.refusal(
            401,
            f"O client_id «{asked.get('client_id', '')}» não pertence a nenhum aplicativo registrado.",
            "Confira a configuração RDSTATION_CLIENT_ID do serviço.",
        )
    if redirect_uri != client.redirect_uri:
        return pages.refusal(
            400,
            "A URL de callback pedida não é igual à registrada no aplicativo. A comparação é exata, letra por letra.",
            f"Pedida: {redirect_uri or '(nenhuma)'}",
            f"Registrada: {client.redirect_uri}",
        )
    if not ACCOUNT.fullmatch(account):
        return pages.refusal(
            400, f"Não existe a conta «{account}».", "As contas são default, account-2, account-3, …"
        )
    echoed = {"state": asked["state"]} if "state" in asked else {}
    if request.method == "POST":
        code = secrets.token_hex(16)
        state.store.add_code(code, account, state.now())
        return _redirect(_with_query(redirect_uri, {"code": code, **echoed}))
    refused = {"error": "access_denied", "error_description": "The user denied the request.", **echoed}
    offered = dict.fromkeys([account, *OFFERED] if account not in OFFERED else OFFERED)
    return pages.consent(
        accounts={one: account_name(state.seed, one) for one in offered},
        chosen=account,
        form={"client_id": client.id, "redirect_uri": redirect_uri, **echoed},
        refuse_url=_with_query(redirect_uri, refused),
        redirect_uri=redirect_uri,
    )


def _redirect(url: str) -> ApiResponse:
    return ApiResponse(status=302, headers={"Location": url, "Cache-Control": "no-store"})


def _with_query(url: str, parameters: dict[str, str]) -> str:
    parts = urlsplit(url)
    query = "&".join(filter(None, [parts.query, urlencode(parameters)]))
    return urlunsplit(parts._replace(query=query))


def token_request(request: Request) -> dict[str, Any]:
    """The JSON body of `POST /auth/token`; empty if it is not a JSON object."""
    return request.json_object() or {}


def is_refresh(request: Request, body: dict[str, Any]) -> bool:
    """Whether a token request presents a refresh token. `grant_type` decides, then `?token_by=`, then the body."""
    asked = body.get("grant_type") or request.query.get("token_by")
    if asked in ("refresh_token", "authorization_code", "code"):
        return asked == "refresh_token"
    return "refresh_token" in body and "code" not in body


def token(state: State, request: Request, body: dict[str, Any]) -> ApiResponse:
    """`POST /auth/token`: a pair for a code or a refresh token."""
    if request.media_type != "application/json":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE")
    if not body:
        raise ApiError(400, "BAD_REQUEST")
    presented = "refresh_token" if is_refresh(request, body) else "code"
    for name in ("client_id", "client_secret", presented):
        if body.get(name) is None:
            raise cannot_be_null(name)
    if not _is_client(state, str(body["client_id"]), str(body["client_secret"])):
        raise ApiError(401, "ACCESS_DENIED")
    if presented == "code":
        return _exchange(state, str(body["code"]))
    return _refresh(state, str(body["refresh_token"]))


def _is_client(state: State, client_id: str, secret: str) -> bool:
    right_id = hmac.compare_digest(client_id.encode(), state.client.id.encode())
    accepted = (
        state.client.secrets if state.settings.client_secrets is None else state.settings.client_secrets
    )
    right_secret = [hmac.compare_digest(secret.encode(), one.encode()) for one in accepted]
    return right_id and any(right_secret)


def _exchange(state: State, code: str) -> ApiResponse:
    found = state.store.find_code(code)
    if found is None:
        raise ApiError(401, "ACCESS_DENIED")
    if found.dead or state.now() >= found.issued_at + CODE_LIFETIME_S:
        raise ApiError(401, "EXPIRED_CODE_GRANT")
    refresh_token = secrets.token_urlsafe(32)
    with state.store.transaction():
        state.store.end_code(code)
        grant = state.store.add_grant(found.account, refresh_token)
    return _pair(state, grant, refresh_token)


def _refresh(state: State, presented: str) -> ApiResponse:
    grant = state.store.grant_of_refresh_token(presented)
    if grant is None or grant.revoked:
        raise ApiError(401, "INVALID_REFRESH_TOKEN")
    if not state.settings.rotate_refresh_tokens:
        grant = state.store.advance(grant)
        return _pair(state, grant, presented if state.settings.repeat_refresh_token else None)
    new = secrets.token_urlsafe(32)
    with state.store.transaction():
        grant = state.store.advance(grant)
        state.store.rotate(grant, presented, new)
    return _pair(state, grant, new)


def _pair(state: State, grant: Grant, refresh_token: str | None) -> ApiResponse:
    lifetime = state.settings.access_token_lifetime
    body: dict[str, Any] = {"access_token": _sign(state, grant, lifetime), "expires_in": lifetime}
    if refresh_token is not None:
        body["refresh_token"] = refresh_token
    return json_response(body, headers={"Cache-Control": "no-store"})


def _sign(state: State, grant: Grant, lifetime: int) -> str:
    issued_at = int(state.now())
    subject = sha256(f"{state.seed}:{state.client.id}:{grant.account}".encode()).digest()
    claims = {
        "iss": ISSUER,
        "sub": f"{urlsafe_b64encode(subject).decode().rstrip('=')}@clients",
        "aud": state.settings.aud,
        "app_name": "Sandbox",
        "scope": state.settings.scope,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "jti": str(uuid4()),
        "grant": grant.id,
        "generation": grant.generation,
    }
    return jwt.encode(claims, state.store.signing_key, algorithm=ALGORITHM)


def authenticate(state: State, request: Request) -> Grant:
    """Return the grant of the request's access token. Raises ApiError (401)."""
    if request.bearer is None:
        raise ApiError(401, "UNAUTHORIZED")
    claims = _claims(state, request.bearer)
    grant = state.store.find_grant(claims["grant"]) if claims else None
    if claims is None or grant is None or grant.revoked:
        raise ApiError(401, "UNAUTHORIZED")
    if state.settings.replaced_access_tokens_die and claims["generation"] != grant.generation:
        raise ApiError(401, "UNAUTHORIZED")
    if state.now() >= claims["exp"]:
        raise expired_access_token(behind_amazon_gateway=state.settings.amazon_gateway)
    return grant


def _claims(state: State, access_token: str) -> dict[str, Any] | None:
    try:
        return jwt.decode(
            access_token, state.store.signing_key, algorithms=[ALGORITHM], options=DECODE_OPTIONS
        )
    except jwt.InvalidTokenError:
        return None


def revoke(state: State, request: Request) -> ApiResponse:
    """`POST /auth/revoke`: revokes both tokens of the grant to which the token in the form belongs.

    As in RFC 7009, `token_type_hint` is only a hint, and an unknown token is not an error.
    """
    bearer = authenticate(state, request)
    if request.media_type != "application/x-www-form-urlencoded":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE")
    presented = request.form.get("token")
    if not presented:
        raise cannot_be_null("token")
    claims = _claims(state, presented)
    if claims is not None:
        grant = state.store.find_grant(claims["grant"])
    else:
        grant = state.store.grant_of_refresh_token(presented)
    if grant is not None and grant.account == bearer.account:
        state.store.revoke_grant(grant.id)
    return json_response({})

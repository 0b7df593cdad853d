"""Uploads, lists, serves, refreshes and removes tokens."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.accounts import upload as uploads
from rdservice.accounts.disconnect import Disconnected
from rdservice.accounts.disconnect import disconnect as disconnect_account
from rdservice.database.pool import transaction
from rdservice.rdstation.client import TOKEN_LIFETIME_S
from rdservice.tokens import store
from rdservice.tokens.refresh import Result
from rdservice.tokens.store import AccountState, StoredToken
from rdservice.web.http import guard
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import json_body, prefers_html, query_text, services
from rdservice.web.http.paths import local_path
from rdservice.web.text.notice_texts import flash_disconnected, flash_notices, flash_refresh

bp = Blueprint("tokens", __name__)

MOST_ACCOUNTS = 100_000


@bp.post("/rd/tokens")
@guard.requires("tokens:write")
def upload() -> ResponseReturnValue:
    """Store an uploaded pair."""
    given = uploads.parse_upload(json_body(), services().pool)
    state, warnings = uploads.upload(services(), given, by=guard.author())
    return jsonify(
        {
            "account_id": state.account_id,
            "status": state.status,
            "expires_at": rfc3339(state.expires_at),
            "warnings": [notice.text for notice in warnings],
        }
    )


@bp.get("/rd/tokens")
@guard.requires("tokens:status")
def list_accounts() -> ResponseReturnValue:
    """List all accounts with their states."""
    with transaction(services().pool) as conn:
        accounts = store.list_accounts(conn, limit=MOST_ACCOUNTS)
    return jsonify({"accounts": [_shown(account) for account in accounts]})


@bp.get("/rd/tokens/<account_id>/access-token")
@guard.requires("tokens:read")
def access_token(account_id: str) -> ResponseReturnValue:
    """Return a valid access token. `fast_reads` responds instead if it is in memory."""
    min_ttl_s = parse_min_ttl(query_text("min_ttl"))
    token = services().access_tokens.usable(requested_account(account_id), min_ttl_s=min_ttl_s)
    return Response(given_out(token), content_type="application/json")


def given_out(token: StoredToken) -> bytes:
    """Return the JSON body of a response with an access token."""
    shown = {
        "access_token": token.access_token,
        "token_type": "Bearer",
        "expires_in": int(token.life_left_s),
        "expires_at": rfc3339(token.expires_at),
    }
    return json.dumps(shown, separators=(",", ":")).encode() + b"\n"


@bp.post("/rd/tokens/<account_id>/refresh")
@guard.requires("tokens:write")
def refresh(account_id: str) -> ResponseReturnValue:
    """Refresh the account's tokens now, even if they are not due."""
    account_id = requested_account(account_id)
    result = services().access_tokens.refresh_now(account_id, by=guard.author())
    if prefers_html():
        flash_refresh(result)
        return redirect(local_path(request.form.get("next")) or url_for("status.show"), code=303)
    return jsonify(_refreshed(account_id, result))


@bp.delete("/rd/tokens/<account_id>")
@guard.requires("tokens:write")
def remove(account_id: str) -> ResponseReturnValue:
    """Remove the account's tokens here and revoke them at RD Station."""
    account_id = requested_account(account_id)
    removed = disconnect_account(services(), account_id, by=guard.author())
    return jsonify(_removed(account_id, removed))


@bp.post("/rd/tokens/<account_id>/disconnect")
@guard.operator_only
def disconnect(account_id: str) -> ResponseReturnValue:
    """Remove the account's tokens; for the page's form, which cannot send DELETE."""
    account_id = requested_account(account_id)
    removed = disconnect_account(services(), account_id, by=guard.author())
    flash_disconnected(account_id, revoked=removed.revoked)
    flash_notices(removed.warnings)
    return redirect(url_for("status.show"), code=303)


def rfc3339(value: datetime) -> str:
    """Return `value` as RFC 3339 in UTC, with a precision of seconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_min_ttl(value: str | None) -> float | None:
    """Return the parameter min_ttl in seconds; None when it is missing. Raises InvalidField."""
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,8}", value):
        raise errors.InvalidField(
            f"min_ttl must be a whole number of seconds, for example {TOKEN_LIFETIME_S // 24}.",
            extra={"field": "min_ttl"},
        )
    return float(value)


def _shown(account: AccountState) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "status": account.status,
        "expires_at": rfc3339(account.expires_at),
        "refresh_after": rfc3339(account.refresh_after),
        "last_error": account.last_error,
        "same_account_as": account.same_account,
    }


def _refreshed(account_id: str, result: Result) -> dict[str, Any]:
    with transaction(services().pool) as conn:
        account = store.account_state(conn, account_id)
    if account is None:
        raise errors.NotFound(f"No account {account_id!r} is connected.")
    if account.status == "reauthorization_required":
        services().access_tokens.raise_refused(account_id)
    if result in (Result.TRANSIENT, Result.REFUSED):
        raise errors.RdStationFailed(
            f"RD Station did not refresh the token ({account.last_error}). The stored tokens are kept, and the service"
            " tries again automatically."
        )
    return {"result": result.value, **_shown(account)}


def _removed(account_id: str, removed: Disconnected) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "removed": True,
        "revoked": removed.revoked,
        "warnings": [notice.text for notice in removed.warnings],
    }

"""The status page: each account, what state it is in, and what to do about it."""

from dataclasses import dataclass, field
from urllib.parse import quote

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from rdservice import database
from rdservice.tokens import store
from rdservice.web import guard, status_diagnosis
from rdservice.web.context import services
from rdservice.web.moments import Moment, moment_of
from rdservice.web.status_texts import advice, outcome_words, status_words

bp = Blueprint("status", __name__)

MAX_ACCOUNTS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An account as the page shows it. `tone` is ok, warn or bad."""

    account_id: str
    name: str | None = field(repr=False)
    status: str
    status_words: str
    tone: str
    advice: str
    outcome: str
    valid_until: Moment
    valid: bool
    next_renewal: Moment | None
    attempted: Moment | None
    login_url: str
    refresh_path: str
    disconnect_path: str


@bp.get("/")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show all accounts, and what is wrong in words."""
    with database.transaction(services().pool) as conn:
        accounts = store.list_accounts(conn, limit=MAX_ACCOUNTS)
        diagnosis = status_diagnosis.diagnose(conn, services())
    return render_template(
        "status.html",
        operator=guard.actor().label,
        cards=[_card(account) for account in accounts],
        more=len(accounts) >= MAX_ACCOUNTS,
        diagnosis=diagnosis,
        login_url=_login_url("default"),
    )


@bp.get("/connect")
@guard.operator_only
def connect() -> ResponseReturnValue:
    """Show a page that moves on to `/rd/login` for `account_id`.

    A form cannot lead there itself: browsers apply the policy `form-action 'self'` also to the redirects that follow,
    and that one leads to RD Station.
    """
    account_id = request.args.get("account_id", "").strip() or "default"
    return render_template(
        "connect.html",
        operator=guard.actor().label,
        account_id=account_id,
        login_url=_login_url(account_id),
    )


def _card(account: store.AccountState) -> Card:
    path = f"/rd/tokens/{quote(account.account_id, safe='')}"
    valid = account.expires_at > account.now
    renewable = account.status != "reauthorization_required"
    return Card(
        account_id=account.account_id,
        name=account.name,
        status=account.status,
        status_words=status_words(account.status),
        tone=_tone(account),
        advice=advice(account.status, account.last_error),
        outcome=outcome_words(account.last_error, attempted=account.attempted_at is not None),
        valid_until=moment_of(account.expires_at, account.now),
        valid=valid,
        next_renewal=moment_of(account.due_at, account.now) if renewable else None,
        attempted=moment_of(account.attempted_at, account.now) if account.attempted_at else None,
        login_url=_login_url(account.account_id),
        refresh_path=f"{path}/refresh",
        disconnect_path=f"{path}/disconnect",
    )


def _tone(account: store.AccountState) -> str:
    if account.status in {"expired", "credentials_refused", "reauthorization_required"}:
        return "bad"
    return "ok" if account.status == "connected" and account.last_error is None else "warn"


def _login_url(account_id: str) -> str:
    # A path of this service, written out: the page must work on whatever host the operator opened it.
    return f"/rd/login?account_id={quote(account_id, safe='')}"

"""Starts and ends subscriptions to lead events, and shows them on the account's page."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from flask import Blueprint, jsonify, redirect, request
from flask.typing import ResponseReturnValue

from rdservice.events import store as events
from rdservice.events.subscriptions import manage, store
from rdservice.events.subscriptions.manage import Changed
from rdservice.names import account_page
from rdservice.web.http import guard
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import prefers_html, services
from rdservice.web.http.paths import action_path, local_path
from rdservice.web.text.datetimes import LocalTime, local_time
from rdservice.web.text.notice_texts import flash_notices, flash_subscribed, flash_unsubscribed

bp = Blueprint("subscriptions", __name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The values for `templates/parts/subscriptions.html`.

    `state`: `void` if another RD Station account was connected after the subscription.
    """

    state: Literal["off", "on", "under_way", "void"]
    since: LocalTime | None
    latest: LocalTime | None
    subscribe_path: str
    unsubscribe_path: str
    back: str
    """The page to which the buttons return."""


@bp.post("/rd/tokens/<account_id>/subscribe")
@guard.requires("tokens:write")
def subscribe(account_id: str) -> ResponseReturnValue:
    """Subscribe the service to the account's lead events."""
    account_id = requested_account(account_id)
    done = manage.subscribe(services(), account_id, by=guard.author())
    if prefers_html():
        flash_subscribed(account_id, changed=done.changed)
    return _respond(account_id, done, subscribed=True)


@bp.post("/rd/tokens/<account_id>/unsubscribe")
@guard.requires("tokens:write")
def unsubscribe(account_id: str) -> ResponseReturnValue:
    """End the account's subscription to lead events."""
    account_id = requested_account(account_id)
    done = manage.unsubscribe(services(), account_id, by=guard.author())
    if prefers_html():
        flash_unsubscribed(account_id, changed=done.changed)
    return _respond(account_id, done, subscribed=False)


def section(conn: psycopg.Connection[Any], account_id: str, now: datetime) -> Section:
    """Return the section for the account's page. `now`: the database's time."""
    rows = store.list_all(conn, account_id)
    latest = events.latest(conn, account_id)
    current = [row for row in rows if row.current]
    state: Literal["off", "on", "under_way", "void"] = "void" if rows else "off"
    if current:
        state = "under_way" if current[-1].complete_at is None else "on"
    return Section(
        state=state,
        since=local_time(current[-1].created_at, now) if current else None,
        latest=local_time(latest, now) if latest else None,
        subscribe_path=action_path(account_id, "subscribe"),
        unsubscribe_path=action_path(account_id, "unsubscribe"),
        back=account_page(account_id),
    )


def _respond(account_id: str, done: Changed, *, subscribed: bool) -> ResponseReturnValue:
    if prefers_html():
        flash_notices(done.warnings)
        back = local_path(request.form.get("next")) or account_page(account_id)
        return redirect(back, code=303)
    return jsonify(
        {
            "account_id": account_id,
            "subscribed": subscribed,
            "changed": done.changed,
            "warnings": [notice.text for notice in done.warnings],
        }
    )

"""The page of API keys: which there are, making one, and revoking one."""

from dataclasses import dataclass, field
from datetime import datetime

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rdservice.access import audit, keys
from rdservice.database.pool import transaction
from rdservice.errors import InvalidField, NotFound
from rdservice.web.http import guard
from rdservice.web.http.context import prefers_html, services
from rdservice.web.text.datetimes import Moment, moment_of
from rdservice.web.text.key_texts import flash_revoked, form_error, maker_words, scope_words

bp = Blueprint("keys", __name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A key as the page shows it. `scopes` has the words of each scope by its name."""

    key_id: str
    name: str
    scopes: dict[str, str]
    created: Moment
    created_by: str
    used: Moment | None
    revoked: Moment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What was typed into the form, and what is wrong with it: the words by the field's name."""

    name: str = ""
    scopes: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


@bp.get("/keys")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show all keys, those in use first, and the form for a new one."""
    return _page(Draft()), 200


@bp.post("/keys")
@guard.operator_only
def create() -> ResponseReturnValue:
    """Make a key from `name` and `scopes` and show it, this once: no redirect could carry it without writing it down.

    Wrong fields are 422: the form again for a browser, a problem for others.
    """
    name, scopes = request.form.get("name", ""), request.form.getlist("scopes")
    try:
        with transaction(services().pool) as conn:
            key = keys.create(conn, name, scopes, created_by=guard.actor().label)
            audit.record(
                conn,
                guard.author(),
                "key_created",
                subject=keys.key_id(key),
                name=name.strip(),
                scopes=scopes,
            )
    except InvalidField as error:
        if not prefers_html():
            raise
        wrong = str(error.extra["field"])
        return _page(Draft(name=name, scopes=scopes, errors={wrong: form_error(wrong)})), 422
    page = render_template("key_created.html", operator=guard.actor().label, key=key, name=name.strip())
    return page, 201


@bp.get("/keys/<key_id>/revoke")
@guard.operator_only
def confirm(key_id: str) -> ResponseReturnValue:
    """Ask whether the key is really to be revoked."""
    with transaction(services().pool) as conn:
        record = keys.record(conn, key_id)
    if record is None or record.revoked_at is not None:
        raise _unknown()
    return render_template("key_revoke.html", operator=guard.actor().label, line=_line(record))


@bp.post("/keys/<key_id>/revoke")
@guard.operator_only
def revoke(key_id: str) -> ResponseReturnValue:
    """Revoke the key; once more changes nothing."""
    with transaction(services().pool) as conn:
        known = keys.revoke(conn, key_id)
        if known:
            audit.record(conn, guard.author(), "key_revoked", subject=key_id)
    if not known:
        raise _unknown()
    flash_revoked(key_id)
    return redirect(url_for("keys.show"), code=303)


def _page(draft: Draft) -> str:
    with transaction(services().pool) as conn:
        lines = [_line(record) for record in keys.list_all(conn)]
    return render_template(
        "keys.html",
        operator=guard.actor().label,
        in_use=[line for line in lines if line.revoked is None],
        revoked=[line for line in lines if line.revoked is not None],
        scopes=scope_words(),
        draft=draft,
    )


def _line(record: keys.KeyRecord) -> Line:
    words = scope_words()

    def moment(time: datetime | None) -> Moment | None:
        return None if time is None else moment_of(time, record.now)

    return Line(
        key_id=record.key_id,
        name=record.name,
        # A scope of a later version, after going back to this one, has no words.
        scopes={scope: words.get(scope, scope) for scope in record.scopes},
        created=moment_of(record.created_at),
        created_by=maker_words(record.created_by),
        used=moment(record.last_used_at),
        revoked=moment(record.revoked_at),
    )


def _unknown() -> NotFound:
    return NotFound("There is no key with this ID that is in use. The page /keys lists all.")

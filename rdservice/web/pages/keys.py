"""The page of API keys: list, create and revoke."""

from dataclasses import dataclass, field
from datetime import datetime

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rdservice.access import audit, keys
from rdservice.database.pool import transaction
from rdservice.errors import InvalidField, NotFound
from rdservice.web.http import guard
from rdservice.web.http.context import prefers_html, services
from rdservice.web.text.datetimes import LocalTime, local_time
from rdservice.web.text.key_texts import flash_revoked, form_error, maker_words, scope_words

bp = Blueprint("keys", __name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A key as the page shows it. `scopes`: text of each scope by its name."""

    key_id: str
    name: str
    scopes: dict[str, str]
    created: LocalTime
    created_by: str
    used: LocalTime | None
    revoked: LocalTime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The content of the form, with error messages by field."""

    name: str = ""
    scopes: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


@bp.get("/keys")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show all keys, valid ones first, and the form for a new one."""
    return _page(Draft()), 200


@bp.post("/keys")
@guard.operator_only
def create() -> ResponseReturnValue:
    """Create a key with `name` and `scopes` and show its full text once. A redirect would have to store it.

    Invalid fields are 422, with the form for browsers and a problem document for others.
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
    """Ask for confirmation before revoking the key."""
    with transaction(services().pool) as conn:
        record = keys.record(conn, key_id)
    if record is None or record.revoked_at is not None:
        raise _unknown()
    return render_template("key_revoke.html", operator=guard.actor().label, line=_line(record))


@bp.post("/keys/<key_id>/revoke")
@guard.operator_only
def revoke(key_id: str) -> ResponseReturnValue:
    """Revoke the key. Idempotent."""
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

    def shown(time: datetime | None) -> LocalTime | None:
        return None if time is None else local_time(time, record.now)

    return Line(
        key_id=record.key_id,
        name=record.name,
        # A scope of a later version has no text here, after a rollback.
        scopes={scope: words.get(scope, scope) for scope in record.scopes},
        created=local_time(record.created_at),
        created_by=maker_words(record.created_by),
        used=shown(record.last_used_at),
        revoked=shown(record.revoked_at),
    )


def _unknown() -> NotFound:
    return NotFound("There is no key with this ID that is in use. The page /keys lists all.")

"""The page of the audit log, newest entries first."""

import re
from dataclasses import dataclass

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.access import audit
from rdservice.database.pool import transaction
from rdservice.web.http import guard
from rdservice.web.http.context import services
from rdservice.web.text.audit_texts import action_words, actor_words, detail_words
from rdservice.web.text.datetimes import LocalTime, local_time

bp = Blueprint("audit", __name__)

PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An entry as the page shows it. `objects`: what the action concerned."""

    entry_id: int
    happened: LocalTime
    actor: str
    action: str
    objects: list[str]
    details: list[str]
    origin: str
    request_id: str | None


@bp.get("/audit")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show a page of entries: the newest, or those with numbers below `before`."""
    before = _before()
    with transaction(services().pool) as conn:
        # Reads one more than it shows, to know whether there are older ones.
        entries = audit.newest(conn, before=before, limit=PAGE + 1)
    shown = entries[:PAGE]
    return render_template(
        "audit.html",
        operator=guard.actor().label,
        lines=[_line(entry) for entry in shown],
        newest=before is None,
        older=shown[-1].entry_id if len(entries) > PAGE else None,
    )


def _before() -> int | None:
    text = request.args.get("before")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise errors.InvalidField("before must be the number of an entry.", extra={"field": "before"})
    return int(text)


def _line(entry: audit.Entry) -> Line:
    return Line(
        entry_id=entry.entry_id,
        happened=local_time(entry.happened_at),
        actor=actor_words(entry.actor_kind, entry.actor_name),
        action=action_words(entry.action),
        objects=[name for name in (entry.account_id, entry.subject) if name is not None],
        details=[detail_words(name, value) for name, value in entry.details.items()],
        origin=entry.origin,
        request_id=entry.request_id,
    )

"""Whether the process answers, and whether it can work. For routers and supervisors, and open to anyone."""

from flask import Blueprint

from rdservice.database.migrate import pending_migrations
from rdservice.database.pool import transaction
from rdservice.errors import DatabaseUnavailable
from rdservice.web.http import guard
from rdservice.web.http.context import services

bp = Blueprint("health", __name__)


@bp.get("/healthz")
@guard.public
def alive() -> dict[str, str]:
    """Answer 200 while the process can answer at all; asks nothing of the database."""
    return {"status": "ok"}


@bp.get("/readyz")
@guard.public
def ready() -> dict[str, str]:
    """Answer 200 when the database answers and has this version's tables, else 503; RD Station does not count."""
    with transaction(services().pool) as conn:
        pending = pending_migrations(conn)
    if pending:
        raise DatabaseUnavailable(
            f"The database lacks the migrations {', '.join(pending)}. Run 'flask release'.", retry_after_s=5
        )
    return {"status": "ok"}

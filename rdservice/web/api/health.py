"""Liveness and readiness checks for routers and supervisors. Public."""

from flask import Blueprint

from rdservice.database.migrate import pending_migrations
from rdservice.database.pool import is_read_only, transaction
from rdservice.errors import DatabaseUnavailable
from rdservice.web.http import guard
from rdservice.web.http.context import services

bp = Blueprint("health", __name__)


@bp.get("/healthz")
@guard.public
def alive() -> dict[str, str]:
    """Respond with 200 while the process runs. Does not query the database."""
    return {"status": "ok"}


@bp.get("/readyz")
@guard.public
def ready() -> dict[str, str]:
    """Respond with 200 if the database takes writes and has all migrations, else with 503. Ignores RD Station."""
    with transaction(services().pool) as conn:
        if is_read_only(conn):
            raise DatabaseUnavailable(
                "The database is read-only: it is a standby, or protects a full disk. Make it, or the one that"
                " DATABASE_URL leads to, take writes.",
                retry_after_s=5,
            )
        pending = pending_migrations(conn)
    if pending:
        raise DatabaseUnavailable(
            f"The database lacks the migrations {', '.join(pending)}. Run 'flask release'.", retry_after_s=5
        )
    return {"status": "ok"}

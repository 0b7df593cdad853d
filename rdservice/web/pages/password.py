"""The page on which operators change their own password."""

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rdservice.access import audit, operators, passwords, sessions, throttle
from rdservice.database.pool import transaction
from rdservice.errors import InvalidField
from rdservice.web.http import browser_session, guard
from rdservice.web.http.context import client_address, prefers_html, services
from rdservice.web.text.password_texts import flash_changed, form_error

bp = Blueprint("password", __name__)


@bp.get("/password")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show the form."""
    return _form({})


@bp.post("/password")
@guard.operator_only
def change() -> ResponseReturnValue:
    """Change the password from `current_password` to `new_password`, repeated as `new_password_again`.

    Ends all sessions of the operator; this browser gets a new one. Invalid fields are 422, with the form for browsers
    and a problem document for others. Too many wrong current passwords are 429; they count as failed log-ins.
    """
    try:
        with passwords.place_in_line():
            token = _changed()
    except InvalidField as error:
        if not prefers_html():
            raise
        wrong = str(error.extra["field"])
        return _form({wrong: form_error(wrong)}), 422
    browser_session.begin(token)
    flash_changed()
    return redirect(url_for("status.show"), code=303)


def _changed() -> str:
    """Change the password; return the token of a new session. Raises InvalidField or TooManyRequests."""
    current, new = request.form.get("current_password", ""), request.form.get("new_password", "")
    if new != request.form.get("new_password_again", ""):
        raise InvalidField(
            "The new password and its repetition differ.", extra={"field": "new_password_again"}
        )
    try:
        passwords.check_rules(new)
    except InvalidField as error:
        raise InvalidField(error.detail, extra={"field": "new_password"}) from error
    verified_hash = _verified_hash(current)
    new_hash = passwords.hash_password(new)
    operator_id = guard.actor().id
    with transaction(services().pool) as conn:
        if operators.change_password(conn, operator_id, verified_hash=verified_hash, new_hash=new_hash):
            sessions.end_all(conn, operator_id)
            token = sessions.start(conn, operator_id, verified_hash=new_hash)
            audit.record(conn, guard.author(), "password_changed", subject=guard.actor().label)
            if token is not None:
                return token
    # The password was reset after it was verified.
    raise _wrong_current()


def _verified_hash(current: str) -> str:
    """Verify `current` and return its stored hash. Counts and limits failures like a log-in."""
    pool, email = services().pool, guard.actor().label
    limits = throttle.login_limits(services().settings.secret_key, client_address(), email)
    with transaction(pool) as conn:
        throttle.count_attempt(conn, limits)
        credentials = operators.find_credentials(conn, email)
    # Computes the hash without holding a connection.
    if credentials is None or not passwords.verify(credentials.password_hash, current):
        with transaction(pool) as conn:
            audit.record_failed_login(conn, guard.author(), email)
        raise _wrong_current()
    with transaction(pool) as conn:
        throttle.forgive(conn, limits)
    return credentials.password_hash


def _wrong_current() -> InvalidField:
    return InvalidField("The current password is wrong.", extra={"field": "current_password"})


def _form(errors: dict[str, str]) -> str:
    return render_template("password.html", operator=guard.actor().label, errors=errors)

"""Logging in and out."""

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rdservice.access import audit, operators, passwords, sessions, throttle
from rdservice.database.pool import transaction
from rdservice.errors import InvalidField, Unauthorized
from rdservice.web.http import browser_session, guard
from rdservice.web.http.context import client_address, prefers_html, services
from rdservice.web.http.paths import local_path
from rdservice.web.text.languages import gettext

bp = Blueprint("sign_in", __name__)


@bp.get("/login")
@guard.public
def show() -> ResponseReturnValue:
    """Show the form. Redirect an operator who is already logged in to the destination of the log-in."""
    if browser_session.current() is not None:
        return redirect(_destination(request.args.get("next")))
    return _form(next_path=request.args.get("next"))


@bp.post("/login")
@guard.public
def log_in() -> ResponseReturnValue:
    """Check `email` and `password` and start a session. Wrong credentials are 401, too many attempts 429."""
    guard.check_csrf()
    email, password = request.form.get("email", ""), request.form.get("password", "")
    with passwords.place_in_line():
        token = _start_session(email, password)
    if token is None:
        if not prefers_html():
            raise Unauthorized("E-mail or password is wrong.")
        return _form(next_path=request.form.get("next"), email=email, wrong=True)
    browser_session.begin(token)
    return redirect(_destination(request.form.get("next")), code=303)


@bp.post("/logout")
@guard.public
def log_out() -> ResponseReturnValue:
    """End the session. Succeeds also when it has ended already."""
    guard.check_csrf()
    _end_session()
    browser_session.forget()
    return redirect(url_for("sign_in.show"), code=303)


def _start_session(email: str, password: str) -> str | None:
    """Return the token of a new session; None for wrong credentials. Raises TooManyRequests."""
    pool, secret_key = services().pool, services().settings.secret_key
    limits = throttle.login_limits(secret_key, client_address(), _throttled_name(email))
    with transaction(pool) as conn:
        throttle.count_attempt(conn, limits)
        credentials = operators.find_credentials(conn, email)
    # Computes the hash without holding a connection.
    password_hash = credentials.password_hash if credentials else None
    if not passwords.verify(password_hash, password) or credentials is None:
        with transaction(pool) as conn:
            known = credentials.email if credentials else None
            audit.record_failed_login(conn, guard.author(), known)
        return None
    newer_hash = passwords.rehash(password) if passwords.needs_rehash(credentials.password_hash) else None
    with transaction(pool) as conn:
        token = sessions.start(conn, credentials.operator_id, verified_hash=credentials.password_hash)
        if token is not None:
            throttle.forgive(conn, limits)
            by = replace(guard.author(), kind="operator", id=credentials.operator_id, name=credentials.email)
            audit.record(conn, by, "logged_in")
        if newer_hash is not None:
            operators.replace_hash(
                conn, credentials.operator_id, verified_hash=credentials.password_hash, new_hash=newer_hash
            )
    if token is not None:
        _end_session()
    return token


def _throttled_name(email: str) -> str:
    """Return the name under which attempts for an operator are counted, the same for all spellings of the e-mail."""
    try:
        return operators.normalize_email(email)
    except InvalidField:
        return ""


def _end_session() -> None:
    """End the session of this request's cookie, if there is one."""
    token = browser_session.cookie_token()
    if token is not None:
        with transaction(services().pool) as conn:
            sessions.end(conn, token)


def _destination(target: str | None) -> str:
    """Return where a log-in redirects to: `target` if it is a local path, else the status page.

    For `/rd/login`, return the page that opens it: `/rd/login` redirects to another origin, and browsers apply the
    policy `form-action 'self'` to all redirects after a form.
    """
    path = local_path(target)
    if path is None:
        return url_for("status.show")
    url = urlsplit(path)
    if url.path == "/rd/login":
        account_id = parse_qs(url.query).get("account_id", ["default"])[0]
        return url_for("status.connect", account_id=account_id)
    return path


def _form(*, next_path: str | None, email: str = "", wrong: bool = False) -> ResponseReturnValue:
    message = gettext("E-mail or password is wrong.") if wrong else None
    page = render_template("login.html", next_path=local_path(next_path), email=email, message=message)
    response = make_response(page, 401 if wrong else 200)
    if wrong:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response

"""The session of an operator's browser: Flask-Login over the rows of `rdservice.access.sessions`.

The signed cookie holds the session's random token, Flask-WTF's CSRF token and flash messages, and nothing else.
"""

from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager, current_user, login_user, logout_user
from itsdangerous import URLSafeTimedSerializer

from rdservice.access import sessions
from rdservice.config.settings import Settings
from rdservice.database.pool import transaction
from rdservice.web.http.context import services


@dataclass(frozen=True, slots=True)
class Visitor:
    """A logged-in operator, in the form that Flask-Login asks for."""

    session: sessions.Session | None
    token: str = field(repr=False)

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def get_id(self) -> str:
        return self.token


class _SignedCookies(SecureCookieSessionInterface):
    """Flask's signed cookies, with one serializer for all requests: Flask makes one for each, with a cookie or not."""

    def __init__(self) -> None:
        self._serializer: URLSafeTimedSerializer | None = None

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        if self._serializer is None:
            self._serializer = super().get_signing_serializer(app)
        return self._serializer


def init_app(app: Flask, settings: Settings) -> None:
    """Set the cookie up and register Flask-Login."""
    app.config.update(
        SESSION_COOKIE_NAME=cookie_name(settings),
        SESSION_COOKIE_HTTPONLY=True,
        # Strict would lose the session on the way back from RD Station.
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.served_over_https,
        SESSION_COOKIE_PATH="/",
    )
    app.session_interface = _SignedCookies()
    manager = LoginManager()
    # Flask-Login's own protection ties a cookie to address and browser; here a row decides.
    manager.session_protection = None
    manager.user_loader(_load)
    # No context processor: a page about a database that is down must not ask it who is looking.
    manager.init_app(app, add_context_processor=False)


def cookie_name(settings: Settings) -> str:
    """Return the cookie's name, with the port where the redirect URI has one.

    Cookies do not know ports: two services on one host would log each other out. Under https browsers take a cookie of
    this name from this host alone (the prefix `__Host-` of RFC 6265bis): no neighbour in the domain can plant one.
    """
    port = urlsplit(settings.redirect_uri).port
    name = "rdservice_session" if port is None else f"rdservice_session_{port}"
    return f"__Host-{name}" if settings.served_over_https else name


def current() -> sessions.Session | None:
    """Return the live session of this request's cookie, or None. Asks the database once a request."""
    return current_user.session if current_user.is_authenticated else None


def session_id() -> str:
    """Return the id of this request's live session. Only in views that the guard opens to operators alone."""
    return cast(sessions.Session, current()).session_id


def begin(token: str) -> None:
    """Make the browser's session that of `token`. Everything in the old cookie goes, its CSRF token too."""
    session.clear()
    login_user(Visitor(None, token))
    # Flask-Login's fingerprint of the browser, and a mark for remembered log-ins: neither is used.
    session.pop("_id", None)
    session.pop("_fresh", None)


def cookie_token() -> str | None:
    """Return the token in the cookie, of a live session or not."""
    token = session.get("_user_id")
    return token if isinstance(token, str) else None


def forget() -> None:
    """Empty the browser's cookie."""
    logout_user()
    session.clear()


def _load(token: object) -> Visitor | None:
    # A cookie of the right signature with something else in it: SECRET_KEY serves another application too, or leaked.
    if not isinstance(token, str):
        return None
    # A page that asks for news by itself is not somebody who uses the service.
    in_use = "fragment" not in request.args
    with transaction(services().pool) as conn:
        found = sessions.find(conn, token, in_use=in_use)
    return None if found is None else Visitor(found, token)

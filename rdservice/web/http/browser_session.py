"""The session of an operator's browser: Flask-Login on top of `rdservice.access.sessions`.

The signed cookie holds only the session's random token, Flask-WTF's CSRF token and flash messages.
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
    """A logged-in operator, with the interface that Flask-Login requires."""

    session: sessions.Session | None
    token: str = field(repr=False)

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def get_id(self) -> str:
        return self.token


class _SignedCookies(SecureCookieSessionInterface):
    """Flask's signed cookies with one serializer for all requests. Flask itself creates one per request."""

    def __init__(self) -> None:
        self._serializer: URLSafeTimedSerializer | None = None

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        if self._serializer is None:
            self._serializer = super().get_signing_serializer(app)
        return self._serializer


def init_app(app: Flask, settings: Settings) -> None:
    """Configure the cookie and register Flask-Login."""
    app.config.update(
        SESSION_COOKIE_NAME=cookie_name(settings),
        SESSION_COOKIE_HTTPONLY=True,
        # With Strict, the redirect back from RD Station would come without the session.
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.served_over_https,
        SESSION_COOKIE_PATH="/",
    )
    app.session_interface = _SignedCookies()
    manager = LoginManager()
    # Flask-Login's protection binds a cookie to address and browser; here the row decides.
    manager.session_protection = None
    manager.user_loader(_load)
    # No context processor: the error page for an unreachable database must not query it for the user.
    manager.init_app(app, add_context_processor=False)


def cookie_name(settings: Settings) -> str:
    """Return the cookie's name, including the port if the redirect URI has one.

    Cookies are shared by all ports of a host, so two services on one host would log each other out. Under https the
    name has the prefix `__Host-` (RFC 6265bis): browsers accept it from this host only, so no sibling can set it.
    """
    port = urlsplit(settings.redirect_uri).port
    name = "rdservice_session" if port is None else f"rdservice_session_{port}"
    return f"__Host-{name}" if settings.served_over_https else name


def current() -> sessions.Session | None:
    """Return the valid session of this request's cookie, or None. Queries the database once per request."""
    return current_user.session if current_user.is_authenticated else None


def session_id() -> str:
    """Return the id of this request's session. Only for views that are restricted to operators."""
    return cast(sessions.Session, current()).session_id


def begin(token: str) -> None:
    """Switch the browser to the session of `token`. Discards the old cookie's content, including its CSRF token."""
    session.clear()
    login_user(Visitor(None, token))
    # Flask-Login's browser fingerprint and its mark for remembered log-ins are not used.
    session.pop("_id", None)
    session.pop("_fresh", None)


def cookie_token() -> str | None:
    """Return the token in the cookie, whether its session is valid or not."""
    token = session.get("_user_id")
    return token if isinstance(token, str) else None


def forget() -> None:
    """Clear the browser's cookie."""
    logout_user()
    session.clear()


def _load(token: object) -> Visitor | None:
    # A valid signature over other content: another application uses the same SECRET_KEY, or the key has leaked.
    if not isinstance(token, str):
        return None
    # Automatic updates of an open page do not count as use of the session.
    in_use = "fragment" not in request.args
    with transaction(services().pool) as conn:
        found = sessions.find(conn, token, in_use=in_use)
    return None if found is None else Visitor(found, token)

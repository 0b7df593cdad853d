"""Access control. Every view declares its callers with exactly one of `public`, `operator_only`,
`operator_only_at_once` and `requires`.

Before each request `judge` checks the caller against the declaration. With an `Authorization` header only the API key
counts; without one the session counts, and for an unsafe method also the CSRF token.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import psycopg
from flask import Flask, current_app, g, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect
from psycopg_pool import ConnectionPool

from rdservice.access import audit, keys, sessions, throttle
from rdservice.access.key_memory import KeyMemory
from rdservice.access.sessions import Session
from rdservice.database.pool import transaction
from rdservice.errors import CsrfFailed, Forbidden, Unauthorized
from rdservice.web.http import browser_session
from rdservice.web.http.context import client_address, prefers_html, request_id, requested_path, services

View = TypeVar("View", bound=Callable[..., Any])
Pool = ConnectionPool[psycopg.Connection[Any]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
OUR_OWN_PAGES = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site for requests from a page of this origin, and for those that the user typed."""
KEY_MEMORY = "rdservice_key_memory"
_DECLARATION = "rdservice_access"


@dataclass(frozen=True, slots=True)
class Access:
    """A view's declaration. `scope`: what an API key needs; None: API keys are not accepted."""

    public: bool = False
    scope: str | None = None
    comes_back: bool = True
    """Whether a browser that must log in first is redirected to the requested address afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The caller of a request. `label`: an operator's e-mail or a key's name."""

    kind: Literal["operator", "key"]
    id: str
    label: str = field(repr=False)
    operator_id: str | None = None
    session_id: str | None = field(default=None, repr=False)


def public(view: View) -> View:
    """Let anyone call the view. Neither key, session nor CSRF token is checked (see `check_csrf`)."""
    return _declare(view, Access(public=True))


def operator_only(view: View) -> View:
    """Let only logged-in operators call the view, and no API key."""
    return _declare(view, Access())


def operator_only_at_once(view: View) -> View:
    """Like `operator_only`, for URLs with secrets in their query: the log-in does not redirect back to them."""
    return _declare(view, Access(comes_back=False))


def requires(scope: str) -> Callable[[View], View]:
    """Let API keys with `scope`, one of `rdservice.access.keys.SCOPES`, and operators call the view."""
    if scope not in keys.SCOPES:
        raise ValueError(f"unknown scope {scope!r}")
    return lambda view: _declare(view, Access(scope=scope))


def actor() -> Actor:
    """Return the caller of this request. Only for views that are not public."""
    return cast(Actor, g.actor)


def author() -> audit.Author:
    """Return the caller of this request for the audit log; of kind `unknown` in public views."""
    caller = cast(Actor | None, g.get("actor"))
    return audit.Author(
        kind=caller.kind if caller else "unknown",
        id=caller.id if caller else None,
        name=caller.label if caller else None,
        origin=f"{request.method} {request.url_rule}",
        request_id=request_id(),
    )


def init_app(app: Flask) -> None:
    """Check every request of `app`. Views may be registered before and after this call."""
    app.config.update(
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_METHODS=UNSAFE_METHODS,
        # The token is valid as long as the session, so that a page left open for hours still works.
        WTF_CSRF_TIME_LIMIT=None,
    )
    CSRFProtect(app)
    app.extensions[KEY_MEMORY] = KeyMemory()
    app.before_request(judge)


def check_declarations(app: Flask) -> None:
    """Raise RuntimeError when a view of `app` has no declaration, or a method that is neither safe nor unsafe here."""
    undeclared = sorted(name for name, view in app.view_functions.items() if not hasattr(view, _DECLARATION))
    if undeclared:
        raise RuntimeError(
            "These views do not declare who may call them; put public, operator_only or requires(…) of"
            f" rdservice.web.http.guard directly above each: {', '.join(undeclared)}"
        )
    for rule in app.url_map.iter_rules():
        strange = sorted((rule.methods or set()) - SAFE_METHODS - UNSAFE_METHODS)
        if strange:
            raise RuntimeError(
                f"{rule.endpoint} has methods that the guard does not know: {', '.join(strange)}"
            )


def judge() -> ResponseReturnValue | None:
    """Return None to allow the request, or a redirect to the log-in page for browsers; raise an error to refuse it."""
    if request.routing_exception is not None or request.endpoint is None:
        # 404 and 405 are the same for everyone.
        return None
    access = getattr(current_app.view_functions[request.endpoint], _DECLARATION, None)
    if access is None:
        raise RuntimeError(f"{request.endpoint} does not declare who may call it")
    if access.public:
        return None
    if "Authorization" in request.headers:
        g.actor = _judge_key(access)
        return None
    session = browser_session.current()
    if session is None:
        if request.method == "GET" and prefers_html():
            return redirect(url_for("sign_in.show", next=requested_path() if access.comes_back else None))
        raise Unauthorized("Send an API key as 'Authorization: Bearer rdk_…', or log in.")
    if request.method not in SAFE_METHODS:
        check_csrf()
    g.actor = _operator(session)
    return None


def key_check(app: Flask, endpoint: str) -> Callable[[str], bool]:
    """Return a function that checks an Authorization header against the view's scope, using only the key memory.

    True: the key may call the view. False: unknown, `judge` must decide.
    """
    scope = cast(Access, getattr(app.view_functions[endpoint], _DECLARATION)).scope
    memory = cast(KeyMemory, app.extensions[KEY_MEMORY])

    def is_allowed(header: str) -> bool:
        text = _key_in(header)
        key = None if text is None else memory.fresh(text)
        return key is not None and scope in key.scopes

    return is_allowed


def check_again() -> Callable[[], bool]:
    """Return a function that tells, at any later time and in any thread, whether this caller may still call this view.

    It raises what `database.pool.transaction` raises. Only for views that are not public.
    """
    pool = services().pool
    if "Authorization" in request.headers:
        header, memory = request.headers["Authorization"], _key_memory()
        access = getattr(current_app.view_functions[cast(str, request.endpoint)], _DECLARATION)
        scope = cast(Access, access).scope

        def may_still() -> bool:
            key = _find_key(header, memory, pool)
            return key is not None and scope in key.scopes

        return may_still
    token = browser_session.cookie_token() or ""

    def is_logged_in() -> bool:
        with transaction(pool) as conn:
            return sessions.find(conn, token, in_use=False) is not None

    return is_logged_in


def check_csrf() -> None:
    """Raise CsrfFailed unless the request has its session's CSRF token and comes from this service's pages.

    Browsers state the origin in Sec-Fetch-Site (W3C Fetch Metadata), which pages cannot change; under https a matching
    Referer is also required. Public views with a form call this function themselves.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in OUR_OWN_PAGES:
        raise CsrfFailed("Another site's page sent this request. Use the pages of this service.")
    try:
        cast(CSRFProtect, current_app.extensions["csrf"]).protect()
    except CSRFError as error:
        raise CsrfFailed(
            f"{error.description} Send the token of the page as form field csrf_token or header X-CSRFToken;"
            " a proxy in front must pass the Host header on unchanged."
        ) from error


def _declare(view: View, access: Access) -> View:
    if hasattr(view, _DECLARATION):
        raise TypeError(f"{view.__qualname__} declares twice who may call it")
    setattr(view, _DECLARATION, access)
    return view


def _judge_key(access: Access) -> Actor:
    key = _find_key(request.headers["Authorization"], _key_memory(), services().pool)
    if key is None:
        _count_refused_key()
        raise Unauthorized(
            "The API key is malformed, unknown or revoked. Create one with 'flask keys create'."
        )
    if access.scope is None:
        raise Forbidden("Only operators may do this, in a browser; API keys are not accepted.")
    if access.scope not in key.scopes:
        raise Forbidden(
            f"The API key lacks the scope {access.scope}. Create one that has it with 'flask keys create'.",
            extra={"scope": access.scope},
        )
    return Actor(kind="key", id=key.key_id, label=key.name)


def _find_key(header: str, memory: KeyMemory, pool: Pool) -> keys.ApiKey | None:
    text = _key_in(header)
    if text is None:
        return None

    def ask() -> keys.ApiKey | None:
        with transaction(pool) as conn:
            return keys.find(conn, text)

    return memory.find(text, ask)


def _key_memory() -> KeyMemory:
    return cast(KeyMemory, current_app.extensions[KEY_MEMORY])


def _key_in(header: str) -> str | None:
    """Return the API key in an Authorization header; None when the header has no well-formed key."""
    scheme, _, text = header.partition(" ")
    text = text.strip()
    return text if scheme.lower() == "bearer" and keys.KEY_PATTERN.fullmatch(text) else None


def _count_refused_key() -> None:
    """Count a refused key. Raises TooManyRequests when this address has sent too many."""
    limits = throttle.key_limits(services().settings.secret_key, client_address())
    with transaction(services().pool) as conn:
        throttle.count_attempt(conn, limits)


def _operator(session: Session) -> Actor:
    return Actor(
        kind="operator",
        id=session.operator_id,
        label=session.email,
        operator_id=session.operator_id,
        session_id=session.session_id,
    )

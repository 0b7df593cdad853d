"""The web application: `create_app` assembles it."""

from pathlib import Path

from flask import Flask, Response, request, send_from_directory
from werkzeug.middleware.proxy_fix import ProxyFix

from rdservice.errors import BadRequest
from rdservice.services import Services
from rdservice.web.api import (
    events,
    export,
    fast_reads,
    health,
    leads,
    metrics,
    openapi,
    passthrough,
    privacy,
    tokens,
    webhooks,
)
from rdservice.web.http import bodies, browser_session, guard, long_responses, problems, response_headers
from rdservice.web.http.context import EXTENSION
from rdservice.web.pages import (
    audit,
    diagnosis,
    keys,
    language_switch,
    navigation,
    notifications,
    oauth,
    password,
    sign_in,
    subscriptions,
    upload,
)
from rdservice.web.pages.overview import views
from rdservice.web.text import datetimes, languages

STATIC = Path(__file__).resolve().parent / "pages" / "static"


def create_app(services: Services) -> Flask:
    """Return the application that uses `services`, which must be started.

    Uses neither database nor network. Raises RuntimeError when a view does not declare who may call it.
    """
    # The app has its own static route: Flask's would be a view without a declaration.
    app = Flask(__name__, static_folder=None, template_folder="pages/templates")
    app.extensions[EXTENSION] = services
    app.secret_key = services.settings.secret_key
    app.config["MAX_CONTENT_LENGTH"] = bodies.MAX_BODY_BYTES
    # Prevents redirects built from the host and path that a client sends.
    app.url_map.merge_slashes = False
    _trust_proxies(app, services.settings.trusted_proxies)

    response_headers.init_app(app, services.settings)
    counts = metrics.init_app(app, services.metrics)
    languages.init_app(app, datetimes.preferred_zone)
    datetimes.init_app(app)
    language_switch.init_app(app)
    navigation.init_app(app)
    browser_session.init_app(app, services.settings)
    app.before_request(check_query)
    # Before the guard, which reads the CSRF token from the body.
    app.before_request(bodies.read_body)
    guard.init_app(app)
    long_responses.init_app(app)
    problems.init_app(app)
    leads.init_app(app)
    webhooks.init_app(app)
    export.init_app(app)
    passthrough.init_app(app)

    app.add_url_rule("/static/<path:filename>", endpoint="static", view_func=static)
    for blueprint in (
        health.bp,
        metrics.bp,
        openapi.bp,
        sign_in.bp,
        password.bp,
        language_switch.bp,
        views.bp,
        keys.bp,
        diagnosis.bp,
        audit.bp,
        notifications.bp,
        oauth.bp,
        tokens.bp,
        upload.bp,
        leads.bp,
        passthrough.bp,
        events.bp,
        webhooks.bp,
        subscriptions.bp,
        export.bp,
        privacy.bp,
    ):
        app.register_blueprint(blueprint)
    guard.check_declarations(app)
    fast_reads.init_app(app, services, counts)
    return app


def check_query() -> None:
    """Refuse a query that is not UTF-8. Otherwise Werkzeug raises in the view that first reads a parameter."""
    try:
        request.query_string.decode()
    except UnicodeDecodeError:
        raise BadRequest("The query of the URL is not UTF-8. Percent-encode it.") from None


@guard.public
def static(filename: str) -> Response:
    """Return a style sheet, script or picture of the pages. Browsers cache it and revalidate it each time."""
    return send_from_directory(STATIC, filename, max_age=0)


def _trust_proxies(app: Flask, count: int) -> None:
    """Take client address and scheme from the headers of the last `count` proxies, but not the host."""
    if count:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=0, x_port=0, x_prefix=0
        )

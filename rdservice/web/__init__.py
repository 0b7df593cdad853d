"""The web application."""

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
from rdservice.web.http import bodies, browser_session, guard, problems, response_headers
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
    """Return the application over `services`, which must be started.

    Touches neither database nor network. Raises RuntimeError when a view does not declare who may call it.
    """
    # The static route is our own: Flask's would be a view without declaration.
    app = Flask(__name__, static_folder=None, template_folder="pages/templates")
    app.extensions[EXTENSION] = services
    app.secret_key = services.settings.secret_key
    app.config["MAX_CONTENT_LENGTH"] = bodies.MAX_BODY_BYTES
    # No redirect is made from what a client sends as host and path.
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
    # Before the guard, which looks for a CSRF token in the body.
    app.before_request(bodies.read_body)
    guard.init_app(app)
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
    """Refuse a query that is no text. Werkzeug would fail on it in whatever view looks at a parameter first."""
    try:
        request.query_string.decode()
    except UnicodeDecodeError:
        raise BadRequest("The query of the URL is not UTF-8. Percent-encode it.") from None


@guard.public
def static(filename: str) -> Response:
    """Return a file of the pages' looks. Browsers keep it, but ask each time whether it is current."""
    return send_from_directory(STATIC, filename, max_age=0)


def _trust_proxies(app: Flask, count: int) -> None:
    """Take client address and scheme from the last `count` proxies. The host stays the one of the request itself."""
    if count:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=0, x_port=0, x_prefix=0
        )

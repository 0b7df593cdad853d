"""The language switch: a link in the footer that works without JavaScript."""

from flask import Blueprint, Flask, redirect, url_for
from flask.typing import ResponseReturnValue

from rdservice.errors import InvalidField
from rdservice.web.http import guard
from rdservice.web.http.context import query_text, requested_path, services
from rdservice.web.http.paths import local_path
from rdservice.web.text import languages

bp = Blueprint("language_switch", __name__)

ONE_YEAR_S = 31_536_000


def init_app(app: Flask) -> None:
    """Make `language_link` available to templates."""
    app.jinja_env.globals["language_link"] = language_link


@bp.get("/language")
@guard.public
def choose() -> ResponseReturnValue:
    """Store `language` in a cookie and redirect to `next` if it is a path of this service.

    A link, not a form: the change is harmless, and error pages can offer it too.
    """
    language = query_text("language")
    if language not in languages.NAMES:
        raise InvalidField(
            f"language must be one of: {', '.join(languages.NAMES)}.", extra={"field": "language"}
        )
    response = redirect(local_path(query_text("next")) or url_for("status.show"))
    response.set_cookie(
        languages.COOKIE,
        language,
        max_age=ONE_YEAR_S,
        secure=services().settings.served_over_https,
        httponly=True,
        samesite="Lax",
    )
    return response


def language_link(language: str, *, comes_back: bool) -> str:
    """Return the URL that switches to `language`, and returns to this page if `comes_back`.

    Error pages do not come back: their URL may hold a secret, or work only once.
    """
    return url_for("language_switch.choose", language=language, next=requested_path() if comes_back else None)

"""The language of pages: the reader's choice in the footer, else the browser's preference, else pt-BR."""

from collections.abc import Callable
from datetime import tzinfo

import flask_babel
from flask import Flask, request

from rdservice.text.catalogue import Language, translated, translated_plural

DEFAULT = "pt_BR"
COOKIE = "rdservice_language"
NAMES = {"pt-BR": "Português", "en": "English"}
"""The names of the languages, by tag (RFC 5646), each in its own language."""
_OFFERED = {"pt": DEFAULT, "en": "en"}


def init_app(app: Flask, preferred_zone: Callable[[], tzinfo]) -> None:
    """Set up translation for the pages of `app`, and times in the zone that `preferred_zone` returns for a request.

    Texts in the code are English. Flask-Babel selects the locale and formats times and numbers; the translations come
    from `rdservice.text.catalogue`, like all others.
    """
    flask_babel.Babel(
        app, default_locale=DEFAULT, locale_selector=preferred, timezone_selector=preferred_zone
    )
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]
        gettext, lambda singular, plural, count: ngettext(singular, plural, count, count=count), newstyle=True
    )
    app.jinja_env.globals["page_language"] = page_language
    app.jinja_env.globals["language_names"] = NAMES


def preferred() -> str:
    """Return the locale of this request: the chosen one, else the browser's first supported one, else pt_BR."""
    chosen = request.cookies.get(COOKIE)
    if chosen in NAMES:
        return chosen.replace("-", "_")
    for tag, quality in request.accept_languages:
        offered = _OFFERED.get(tag.replace("_", "-").split("-")[0].lower())
        if offered is not None and quality > 0:
            return offered
    return DEFAULT


def page_language() -> Language:
    """Return the language tag (RFC 5646) of this request's pages."""
    return "pt-BR" if str(flask_babel.get_locale()) == DEFAULT else "en"


def gettext(text: str, **values: str) -> str:
    """Return the English `text` in this request's language, with `%(name)s` replaced by `values`."""
    return translated(page_language(), text, **values)


def ngettext(singular: str, plural: str, count: int, /, **values: str) -> str:
    """Return the plural form for `count` in this request's language; `values` may replace `count` by formatted text."""
    return translated_plural(page_language(), singular, plural, count, **values)

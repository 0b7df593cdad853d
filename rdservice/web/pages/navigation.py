"""The pages that the header of every page leads to, in order. A new page is one line here."""

from dataclasses import dataclass
from typing import Literal

from flask import Flask, request, url_for

from rdservice.web.text.languages import gettext


@dataclass(frozen=True, slots=True)
class Entry:
    """A link. `current` is the value of `aria-current`: this very page, or one that belongs to it."""

    href: str
    words: str
    current: Literal["page", "true"] | None


def init_app(app: Flask) -> None:
    """Let the templates of `app` call `navigation()`."""
    app.jinja_env.globals["navigation"] = entries


def entries() -> list[Entry]:
    """Return the links in the reader's language."""
    return [
        _entry("status.show", gettext("Overview")),
        _entry("diagnosis.show", gettext("Diagnosis")),
        _entry("keys.show", gettext("API keys")),
        _entry("notifications.show", gettext("Notifications")),
        _entry("audit.show", gettext("Audit")),
    ]


def _entry(endpoint: str, words: str) -> Entry:
    """Return a link to a view; all views of its blueprint belong to it."""
    current: Literal["page", "true"] | None = None
    if request.endpoint == endpoint:
        current = "page"
    elif request.blueprint == endpoint.partition(".")[0]:
        current = "true"
    return Entry(href=url_for(endpoint), words=words, current=current)

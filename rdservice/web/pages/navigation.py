"""The links in the header of every page, in order. Add a line here for a new page."""

from dataclasses import dataclass
from typing import Literal

from flask import Flask, request, url_for

from rdservice.web.text.languages import gettext


@dataclass(frozen=True, slots=True)
class Entry:
    """A link. `current` is the value of `aria-current`: for the link's own page, or a page of its section."""

    href: str
    words: str
    current: Literal["page", "true"] | None


def init_app(app: Flask) -> None:
    """Make `navigation()` available to templates."""
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
    """Return a link to a view. All views of its blueprint form its section."""
    current: Literal["page", "true"] | None = None
    if request.endpoint == endpoint:
        current = "page"
    elif request.blueprint == endpoint.partition(".")[0]:
        current = "true"
    return Entry(href=url_for(endpoint), words=words, current=current)

"""The language of messages on a terminal. Standard library only: scripts/start asks before any package is there."""

from collections.abc import Mapping


def is_portuguese(environ: Mapping[str, str]) -> bool:
    """Return whether the locale of messages (locale(7)) is any Portuguese; for all others they are in English."""
    locale = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return locale.lower().startswith("pt")

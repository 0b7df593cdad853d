"""Which external text is safe to store and display, and how paths and logs refer to an account."""

from urllib.parse import quote

IN_QUERY = "-"
"""In place of an account's ID in a path: the query parameter `account_id` names the account."""


def is_readable(text: str) -> bool:
    """Return whether `text` has printable characters only, so that it is safe to store, display and search.

    This excludes NUL, which PostgreSQL refuses, unpaired surrogates, which UTF-8 cannot encode, invisible characters,
    and U+FFFD, which replaces invalid UTF-8 in a URL, so that different URLs would yield the same text.
    """
    return text.isprintable() and "\ufffd" not in text


def is_segment(text: str) -> bool:
    """Return whether `text` can be a segment of a URL path that every client and proxy passes on unchanged."""
    return is_readable(text) and "/" not in text and text == text.strip() and text not in {"", ".", ".."}


def account_page(account_id: str) -> str:
    """Return the path of an account's page, with a query if the account's ID is no segment of a path."""
    if is_segment(account_id):
        return f"/accounts/{quote(account_id, safe='')}"
    return f"/accounts/{IN_QUERY}?account_id={quote(account_id, safe='')}"


def names_a_person(account_id: str) -> bool:
    """Return whether an account ID is an e-mail address, which is personal data."""
    return "@" in account_id


def account_in_logs(account_id: str) -> str:
    """Return how logs and errors refer to an account: by its ID, unless that is an e-mail address.

    The log field `claim` (the number of the lease) then leads to the account in the database.
    """
    return "(an e-mail address)" if names_a_person(account_id) else repr(account_id)

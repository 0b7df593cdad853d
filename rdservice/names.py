"""Which external text is safe to store and display, and how logs refer to an account without personal data."""


def is_readable(text: str) -> bool:
    """Return whether `text` has printable characters only, so that it is safe to store, display and search.

    This excludes NUL, which PostgreSQL refuses, unpaired surrogates, which UTF-8 cannot encode, invisible characters,
    and U+FFFD, which replaces invalid UTF-8 in a URL, so that different URLs would yield the same text.
    """
    return text.isprintable() and "\ufffd" not in text


def names_a_person(account_id: str) -> bool:
    """Return whether an account ID is an e-mail address, which is personal data."""
    return "@" in account_id


def account_in_logs(account_id: str) -> str:
    """Return how logs and errors refer to an account: by its ID, unless that is an e-mail address.

    The log field `claim` (the number of the lease) then leads to the account in the database.
    """
    return "(an e-mail address)" if names_a_person(account_id) else repr(account_id)

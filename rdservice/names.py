"""What of a text from outside is fit to be kept, shown and looked for."""


def is_readable(text: str) -> bool:
    """Return whether `text` has printable characters only.

    So it has no NUL, which PostgreSQL refuses, no half of a surrogate pair, which UTF-8 cannot express, nothing
    invisible, and no U+FFFD, which stands where bytes of a URL were no UTF-8: it could have been any of them.
    """
    return text.isprintable() and "\ufffd" not in text


def names_a_person(account_id: str) -> bool:
    """Return whether an account's id is an e-mail address, which is personal data."""
    return "@" in account_id


def account_in_logs(account_id: str) -> str:
    """Return what logs and errors call an account. The claim of a log line tells which one an e-mail address was."""
    return "(an e-mail address)" if names_a_person(account_id) else repr(account_id)

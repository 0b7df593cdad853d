"""What an account is called where people who may not know its name read on."""


def names_a_person(account_id: str) -> bool:
    """Return whether an account's id is an e-mail address, which is personal data."""
    return "@" in account_id


def account_in_logs(account_id: str) -> str:
    """Return what logs and errors call an account. The claim of a log line tells which one an e-mail address was."""
    return "(an e-mail address)" if names_a_person(account_id) else repr(account_id)

"""Which texts can name an account."""

from rdservice.errors import InvalidField
from rdservice.names import is_readable

LONGEST_ACCOUNT_ID = 200


def check_account_id(value: object) -> str:
    """Return `value` if it can name an account: 1 to 200 printable characters, no slash, no white space around.

    Raises InvalidField.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ACCOUNT_ID:
        raise _invalid(f"must be a text of 1 to {LONGEST_ACCOUNT_ID} characters")
    if not is_readable(value) or "/" in value or value != value.strip() or value in {".", ".."}:
        raise _invalid("may have printable characters only, no slash, no white space around it")
    return value


def _invalid(what: str) -> InvalidField:
    return InvalidField(f"account_id {what}.", extra={"field": "account_id"})

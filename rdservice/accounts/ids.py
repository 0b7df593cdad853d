"""Rules for account ids."""

from rdservice.errors import InvalidField
from rdservice.names import is_readable
from rdservice.text.catalogue import message

LONGEST_ACCOUNT_ID = 200

ID_LENGTH = message("account_id must be a string of 1 to %(most)s characters.")
ID_CHARACTERS = message(
    "account_id must contain printable characters only, no slash and no white space around it."
)


def check_account_id(value: object) -> str:
    """Return `value` if it is a valid account id, else raise InvalidField.

    A valid id has 1 to 200 printable characters, no slash and no white space around it, and is not `.` or `..`: ids are
    segments of URL paths.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ACCOUNT_ID:
        raise _invalid(ID_LENGTH, most=LONGEST_ACCOUNT_ID)
    if not is_readable(value) or "/" in value or value != value.strip() or value in {".", ".."}:
        raise _invalid(ID_CHARACTERS)
    return value


def _invalid(detail: str, **values: object) -> InvalidField:
    return InvalidField(detail, values=values, extra={"field": "account_id"})

"""Which account a request is about."""

from rdservice.accounts.ids import check_account_id
from rdservice.errors import InvalidField
from rdservice.names import IN_QUERY
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.http.context import query_text, services


def requested_account(in_path: str | None = None) -> str:
    """Return the id of the account that the request's path or its query parameter `account_id` names.

    `in_path`: the id in the path, None on routes without one, for which `default` is the default. Any id can be in the
    query; the path then has `-`. Raises InvalidField for an id that no account can have, and if path and query name two
    accounts.
    """
    in_query = query_text("account_id")
    if in_path is not None and in_query is not None and in_path not in (IN_QUERY, in_query):
        raise InvalidField(
            f"The path and account_id name two accounts. Write {IN_QUERY} in the path to use account_id.",
            extra={"field": "account_id"},
        )
    named = in_path if in_query is None else in_query
    return check_account_id(services().pool, DEFAULT_ACCOUNT if named is None else named)

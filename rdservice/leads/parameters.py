"""Checks the parameters of lists and leads."""

import re
from dataclasses import dataclass
from typing import NoReturn

from rdservice import errors
from rdservice.names import is_readable
from rdservice.text.catalogue import message

DEFAULT_PAGE_SIZE = 25

LARGEST_PAGE_SIZE = 125

LONGEST_NAME = 255

LONGEST_EMAIL = 254
"""RFC 5321 4.5.3.1.3, without the angle brackets."""

ORDER = re.compile(r"[a-z][a-z0-9_]{0,63}:(asc|desc)")

UUID_FORM = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The requested page of a list.

    `page` starts at 1. `order`: `field:asc` or `field:desc`; None: RD Station's default. `search`: text that the names
    of segmentations must contain; None: all segmentations.
    """

    page: int
    page_size: int
    order: str | None
    search: str | None = None

    @property
    def query(self) -> dict[str, str | int]:
        query: dict[str, str | int] = {"page": self.page, "page_size": self.page_size}
        if self.order is not None:
            query["order"] = self.order
        if self.search is not None:
            query["search"] = self.search
        return query

    @property
    def parameters(self) -> tuple[str | int | None, ...]:
        listed = (self.page, self.page_size, self.order)
        return listed if self.search is None else (*listed, self.search)

    @property
    def refusable(self) -> str | None:
        """The name of the parameter that RD Station may refuse, or None."""
        return "order" if self.order is not None else "search" if self.search is not None else None


def parse_listing(
    page: str | None, page_size: str | None, order: str | None, search: str | None = None
) -> Listing:
    """Check the query parameters of a list. Raises InvalidField with the name of the first invalid one."""
    if order is not None and not ORDER.fullmatch(order):
        raise_invalid("order", "order must be a field and a direction, such as created_at:desc.")
    if search is not None and (not 0 < len(search) <= LONGEST_NAME or not is_readable(search)):
        raise_invalid("search", f"search must have 1 to {LONGEST_NAME} printable characters.")
    return Listing(
        page=_number("page", page, default=1, most=10**9),
        page_size=_number("page_size", page_size, default=DEFAULT_PAGE_SIZE, most=LARGEST_PAGE_SIZE),
        order=order,
        search=search,
    )


def check_email(value: object) -> str:
    """Return `value` if it has the form of an e-mail address, else raise InvalidField, which does not repeat it."""
    if value is None:
        raise_invalid("email", message("email is missing."))
    if not isinstance(value, str) or not 3 <= len(value) <= LONGEST_EMAIL:
        raise_invalid(
            "email", message("email must be a text of 3 to %(most)s characters."), most=LONGEST_EMAIL
        )
    name, _, domain = value.rpartition("@")
    if not name or not domain or not is_readable(value) or " " in value:
        raise_invalid("email", message("email is not an e-mail address."))
    return value


def check_uuid(value: object) -> str:
    """Return `value` if it is a UUID, else raise InvalidField, which does not repeat it."""
    if not isinstance(value, str) or not UUID_FORM.fullmatch(value):
        raise_invalid("uuid", message("uuid is not a UUID."))
    return value


def _number(name: str, text: str | None, *, default: int, most: int) -> int:
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= most:
        raise_invalid(name, f"{name} must be a whole number from 1 to {most}.")
    return int(text)


def raise_invalid(name: str, detail: str, **values: object) -> NoReturn:
    """Raise InvalidField for the parameter `name`; `detail` is a sentence about it, with `values` in its places."""
    raise errors.InvalidField(detail, values=values, extra={"field": name})

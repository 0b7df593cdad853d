"""Parses `page`, `page_size` and `order` (https://developers.rdstation.com/reference/mais-informações)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.errors import ValidationError, invalid_option

DEFAULT_PAGE_SIZE = 25
LARGEST_PAGE_SIZE = 125


@dataclass(frozen=True)
class Page:
    """The requested page; `number` starts at 1."""

    number: int
    size: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Page:
        """Parse `page` and `page_size`. Raises ValidationError, also for a size above 125."""
        number = _positive(query.get("page", "1"), "page", None)
        size = _positive(query.get("page_size", str(DEFAULT_PAGE_SIZE)), "page_size", LARGEST_PAGE_SIZE)
        return cls(number, size)

    @property
    def start(self) -> int:
        return (self.number - 1) * self.size

    def headers(self, total: int) -> dict[str, str]:
        return {
            "pagination-total-rows": str(total),
            "pagination-page-size": str(self.size),
            "pagination-page": str(self.number),
        }


def _positive(text: str, name: str, most: int | None) -> int:
    if text.isascii() and text.isdigit() and len(text) < 12:
        number = int(text)
        if number >= 1 and (most is None or number <= most):
            return number
    rule = "Must be a positive integer" + (f" of at most {most}." if most else ".")
    raise ValidationError([{"error_type": "INVALID", "error_message": rule, "path": f"query.{name}"}])


def order_of(query: Mapping[str, str], names: Sequence[str], default: str) -> tuple[str, bool]:
    """Parse `order=name:desc`: return one of `names`, and whether it is descending (default: ascending)."""
    name, _, direction = query.get("order", default).partition(":")
    if name not in names or direction.lower() not in ("", "asc", "desc"):
        raise invalid_option("query.order", [f"{name}:{way}" for name in names for way in ("asc", "desc")])
    return name, direction.lower() == "desc"

"""Faults that tests request from the sandbox: which calls they hit, and what happens to these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from sandbox.counters import OPERATIONS

# `timeout`, `drop_before`, `status` and `html` imitate a proxy in front of the API: the call has no effect.
# `drop_after`, `truncated` and `slow_drip` damage the response of a call that took effect.
WITHOUT_EFFECT = ("status", "timeout", "drop_before", "html")
WITH_EFFECT = ("drop_after", "truncated", "slow_drip")
KINDS = WITHOUT_EFFECT + WITH_EFFECT
ANY_OPERATION = "*"
MEMBERS = {"operation", "kind", "status", "error_type", "retry_after", "rate", "count"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One entry of the setting `faults`.

    `status` (with `error_type` and, as seconds, `retry_after`) belongs to the kind `status`. The kind `html`, a page of
    a proxy in front of the API, may have a `status` too; its default is 200. `rate`: the probability of a hit; None:
    always. `count`: the number of hits left; None: no limit.
    """

    operation: str
    kind: str
    status: int | None = None
    error_type: str | None = None
    retry_after: int | None = None
    rate: float | None = None
    count: int | None = None

    def as_json(self) -> dict[str, Any]:
        members = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in members.items() if value is not None}


def parse_faults(value: object) -> tuple[Fault, ...]:
    """Parse the setting `faults` from JSON. Raises ValueError with a message that names the problem."""
    if not isinstance(value, list):
        raise ValueError("faults: must be a list of objects")
    return tuple(_parse_fault(entry, f"faults[{position}]") for position, entry in enumerate(value))


def _parse_fault(entry: object, where: str) -> Fault:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: must be an object")
    for name in entry:
        if name not in MEMBERS:
            raise ValueError(f"{where}.{name}: unknown name; known are {', '.join(sorted(MEMBERS))}")
    operation, kind = entry.get("operation"), entry.get("kind")
    if operation not in (*OPERATIONS, ANY_OPERATION):
        raise ValueError(f"{where}.operation: must be one of {', '.join(OPERATIONS)} or *")
    if kind not in KINDS:
        raise ValueError(f"{where}.kind: must be one of {', '.join(KINDS)}")
    status = _optional_integer(entry, "status", where, 200, 599)
    if kind == "status" and status is None:
        raise ValueError(f"{where}.status: is required for the kind status")
    error_type = entry.get("error_type")
    if error_type is not None and not (isinstance(error_type, str) and error_type):
        raise ValueError(f"{where}.error_type: must be a string that is not empty")
    for name in ("status", "error_type", "retry_after"):
        if kind != "status" and entry.get(name) is not None and (name, kind) != ("status", "html"):
            raise ValueError(f"{where}.{name}: belongs to the kind status only")
    return Fault(
        operation=operation,
        kind=kind,
        status=status,
        error_type=error_type,
        retry_after=_optional_integer(entry, "retry_after", where, 0, 86_400),
        rate=_rate(entry, where),
        count=_optional_integer(entry, "count", where, 1, 1_000_000_000),
    )


def _rate(entry: Mapping[str, object], where: str) -> float | None:
    rate = entry.get("rate")
    if rate is None:
        return None
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate <= 1:
        raise ValueError(f"{where}.rate: must be a number from 0 to 1")
    return rate


def _optional_integer(
    entry: Mapping[str, object], name: str, where: str, least: int, most: int
) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{where}.{name}: must be an integer from {least} to {most}")
    return value


def pick(faults: tuple[Fault, ...], operation: str, random: Random) -> tuple[Fault | None, tuple[Fault, ...]]:
    """Return the first fault that hits a call of `operation`, and the faults left after the hit."""
    for position, fault in enumerate(faults):
        if fault.operation not in (operation, ANY_OPERATION):
            continue
        if fault.rate is not None and random.random() >= fault.rate:
            continue
        if fault.count is None:
            return fault, faults
        left = (replace(fault, count=fault.count - 1),) if fault.count > 1 else ()
        return fault, faults[:position] + left + faults[position + 1 :]
    return None, faults

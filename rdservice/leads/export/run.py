"""Exports all leads of a segmentation, with background calls in the account's rate budget.

The export reads the list one page at a time (see `paging`), and full records several at a time. It does not use the
cache, from which it would push out the content that programs read again and again.
"""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from rdservice import errors
from rdservice.access import audit
from rdservice.access.audit import Author
from rdservice.account_calls.failures import is_transient, refusal
from rdservice.database.pool import UNAVAILABLE, transaction
from rdservice.errors import RdServiceError
from rdservice.leads.export.formats import LISTED_COLUMNS, Csv, Format, Lines, Ndjson, full_columns
from rdservice.leads.export.paging import PAGE_SIZE, Lead, Page, Position, ReversePager, Unsettled
from rdservice.leads.parameters import UUID_FORM
from rdservice.leads.segmentations import segmentation_id
from rdservice.rdstation.client import ApiResponse
from rdservice.services import Services
from rdservice.text.catalogue import message

log = logging.getLogger(__name__)

ORDER = "created_at:asc"
RECORDS_AT_ONCE = 8
"""Enough for 480 calls per minute when each takes a second."""
RETRY_S = 5.0
RETRY_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Pauses between attempts when RD Station or the database fails in the middle of an export."""
LONGEST_FIELD_NAME = 255

Pause = Callable[[float], None]
"""Waits for a number of seconds; raises to end the export. Called from several threads."""


class _Ended(Exception):
    """The export was closed."""


class _Transient(Exception):
    """A failure after which another attempt may succeed."""

    def __init__(self, error: RdServiceError) -> None:
        super().__init__(error.detail)
        self.error = error


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to export.

    `segmentation`: an ID or a name; None: all leads. `full`: full records instead of listed ones. `after`: the last
    lead that arrived from an interrupted export; None: begin with the newest lead.
    """

    account_id: str
    segmentation: str | None
    format: Format
    full: bool
    after: Position | None


def parse_after(text: str) -> Position:
    """Parse `after`: the `created_at` and the `uuid` of a lead, separated by a comma. Raises InvalidField."""
    moment, _, uuid = text.rpartition(",")
    try:
        # In a query a plus means a space unless it is written as %2B.
        position = _position({"created_at": moment.replace(" ", "+"), "uuid": str(UUID(uuid))})
    except ValueError:
        raise errors.InvalidField(
            "after must be created_at and uuid of the last complete line, separated by a comma, such as"
            " 2026-05-04T10:00:00.000-03:00,5408c5a3-4711-4f2e-8d0b-13407a3e30f3.",
            extra={"field": "after"},
        ) from None
    return position


class Export:
    """An export whose first page has been read. Iterate over `batches` once, then `close` it."""

    def __init__(
        self, services: Services, wanted: Wanted, *, pause: Pause, timeout_s: float, by: Author
    ) -> None:
        """Read the first page. All waits for slots in the rate budget until then take `timeout_s` seconds at most.

        Raises NotFound, NotConnected, TooManyRequests and any other RdServiceError that prevents the export, and what
        `pause` raises. The audit records the export, with `by` as the author, before any lead is returned.
        """
        self._services = services
        self._wanted = wanted
        self._pause_caller = pause
        self._begin_by = time.monotonic() + timeout_s
        self._closed = threading.Event()
        self._under_way = False
        self._connection_id = services.access_tokens.stored(wanted.account_id).connection_id
        self._segmentation_id = segmentation_id(services, wanted.account_id, wanted.segmentation)
        self.lines: Lines = self._choose_lines()
        self._pager = ReversePager(
            self._read_page,
            after=wanted.after,
            # The list of all leads contains each lead from its creation on.
            only_new_ones_enter=wanted.segmentation is None,
        )
        self._batches = iter(self._pager)
        self._first: list[Lead] | None = next(self._batches, [])
        self._under_way = True
        self._note(by)
        self._threads = (
            ThreadPoolExecutor(RECORDS_AT_ONCE, thread_name_prefix="export") if wanted.full else None
        )

    @property
    def expected(self) -> int:
        """Approximate number of leads that the export will return."""
        return self._pager.expected

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Yield up to a page of leads at a time, the newest first.

        Raises RdServiceError when the export cannot continue, and what `pause` raises. The leads yielded before are
        complete; pass the last one as `after` to continue.
        """
        try:
            while True:
                batch = self._first if self._first is not None else next(self._batches, None)
                self._first = None
                if batch is None:
                    return
                yield self._records(batch)
        except Unsettled:
            raise errors.RdStationFailed(
                message(
                    "The segmentation changes faster than it can be read. Continue later, after the last lead"
                    " that arrived."
                )
            ) from None

    def close(self) -> None:
        """End the export at any point."""
        self._closed.set()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _choose_lines(self) -> Lines:
        if self._wanted.format == "ndjson":
            return Ndjson()
        return Csv(full_columns(self._fields()) if self._wanted.full else LISTED_COLUMNS)

    def _note(self, by: Author) -> None:
        with transaction(self._services.pool) as conn:
            audit.record(
                conn,
                by,
                "leads_exported",
                account_id=self._wanted.account_id,
                subject=self._segmentation_id,
                format=self._wanted.format,
                full=self._wanted.full,
                resumed=self._wanted.after is not None,
            )

    def _fields(self) -> list[str]:
        """Return the names of the account's fields, custom fields included."""
        response = self._ask(self._services.rdstation.contact_fields, _names_of_fields)
        return _names_of_fields(response) or []

    def _read_page(self, number: int) -> Page:
        def send(access_token: str) -> ApiResponse:
            query: dict[str, str | int] = {"page": number, "page_size": PAGE_SIZE, "order": ORDER}
            return self._services.rdstation.segmentation_contacts(access_token, self._segmentation_id, query)

        return _page(
            self._ask(send, lambda response: _total(response) is not None and _contacts(response) is not None)
        )

    def _records(self, batch: list[Lead]) -> list[dict[str, Any]]:
        if self._threads is None:
            return [_without_links(lead.listed) for lead in batch]
        return [record for record in self._threads.map(self._full_record, batch) if record is not None]

    def _full_record(self, lead: Lead) -> dict[str, Any] | None:
        """Return the full record of a lead, or None if RD Station no longer has it."""

        def send(access_token: str) -> ApiResponse:
            return self._services.rdstation.contact(access_token, lead.position.uuid)

        try:
            response = self._ask(send, lambda response: isinstance(response.json(), dict))
        except errors.NotFound:
            return None
        return _without_links(lead.listed) | _without_links(response.json())

    def _ask(
        self, send: Callable[[str], ApiResponse], accept: Callable[[ApiResponse], object]
    ) -> ApiResponse:
        """Call RD Station until `accept` returns true for a response. Before the first page, try once only."""
        pauses = iter(RETRY_PAUSES_S)
        while True:
            self._pause(0)
            try:
                return self._attempt(send, accept)
            except _Transient as failure:
                # After a 429 the rate budget waits.
                limited = isinstance(failure.error, errors.TooManyRequests)
                pause_s = 0.0 if limited else next(pauses, None)
                if not self._under_way or pause_s is None:
                    raise failure.error from failure
                log.info("an export goes on after %.0f s: %s", pause_s, failure.error.code)
            self._pause(pause_s)

    def _attempt(
        self, send: Callable[[str], ApiResponse], accept: Callable[[ApiResponse], object]
    ) -> ApiResponse:
        """Call RD Station once. Raises _Transient if another attempt may succeed, else RdServiceError."""
        try:
            response = self._call(send)
        except (errors.RdStationUnavailable, errors.RdStationTimeout) as error:
            raise _Transient(error) from error
        except UNAVAILABLE as failure:
            unavailable = errors.DatabaseUnavailable("The database does not respond.", retry_after_s=RETRY_S)
            raise _Transient(unavailable) from failure
        if response.status == HTTPStatus.OK and accept(response):
            return response
        if is_transient(response):
            raise _Transient(refusal(response))
        raise refusal(response)

    def _call(self, send: Callable[[str], ApiResponse]) -> ApiResponse:
        services, account_id = self._services, self._wanted.account_id
        if services.access_tokens.stored(account_id).connection_id != self._connection_id:
            raise errors.NotConnected(
                message(
                    "Another RD Station account was connected as '%(account)s' during the export. Start it again."
                ),
                values={"account": account_id},
                extra={"reauthorize_url": services.access_tokens.reauthorize_url(account_id)},
            )
        return services.account_calls.send(
            account_id,
            send,
            background=True,
            timeout_s=math.inf if self._under_way else self._begin_by - time.monotonic(),
            pause=self._pause,
        )

    def _pause(self, seconds: float) -> None:
        if self._closed.is_set():
            raise _Ended
        self._pause_caller(seconds)


def _page(response: ApiResponse) -> Page:
    """Return the page in a response. Raises RdStationFailed if it is not in the order of creation."""
    found = []
    for listed in _contacts(response) or []:
        try:
            found.append(Lead(_position(listed), listed))
        except (KeyError, TypeError, ValueError):
            raise errors.RdStationFailed(
                message("RD Station lists a lead without uuid or created_at, which an export needs.")
            ) from None
    moments = [lead.position.created_at for lead in found]
    if moments != sorted(moments):
        raise errors.RdStationFailed(
            message(
                "RD Station does not list these leads in the order of their creation, so the export would miss some."
            )
        )
    return Page(tuple(found), _total(response) or 0)


def _position(listed: dict[str, Any]) -> Position:
    created_at = datetime.fromisoformat(listed["created_at"])
    if created_at.tzinfo is None:
        raise ValueError("created_at has no time zone")
    if not isinstance(listed["uuid"], str) or not UUID_FORM.fullmatch(listed["uuid"]):
        raise ValueError("no UUID")
    return Position(created_at.astimezone(UTC), listed["uuid"].lower())


def _contacts(response: ApiResponse) -> list[dict[str, Any]] | None:
    body = response.json()
    listed = body.get("contacts") if isinstance(body, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        return None
    return listed


def _total(response: ApiResponse) -> int | None:
    text = response.headers.get("pagination-total-rows", "")
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else None


def _names_of_fields(response: ApiResponse) -> list[str] | None:
    body = response.json()
    fields = body.get("fields") if isinstance(body, dict) else None
    if not isinstance(fields, list):
        return None
    names = [field.get("api_identifier") for field in fields if isinstance(field, dict)]
    return [name for name in names if isinstance(name, str) and 0 < len(name) <= LONGEST_FIELD_NAME]


def _without_links(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record without its links, which are URLs of RD Station's API."""
    return {name: value for name, value in record.items() if name != "links"}

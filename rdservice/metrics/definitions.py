"""The metrics of a process, as in-memory metrics of prometheus_client.

Every label has a closed set of values, and every combination that can occur exists from the start with the value 0:
Prometheus sees no increase in a series whose first sample is 1. No account, e-mail, URL or error text is ever a label.
"""

from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, values

Operation = Literal[
    "token_exchange",
    "token_refresh",
    "revoke",
    "account_info",
    "segmentations_list",
    "contacts_list",
    "contact_get",
    "other",
]
StatusClass = Literal["2xx", "3xx", "4xx", "5xx", "none"]
Reason = Literal[
    "unauthorized",
    "refused",
    "credentials",
    "rate_limited",
    "client_error",
    "server_error",
    "timeout",
    "connection",
    "bad_payload",
]
RefreshResult = Literal["stored", "refused", "transient", "superseded", "waited", "second_look"]
AuthStage = Literal["code_exchange", "refresh", "api_call"]
CacheOutcome = Literal["hit", "miss", "stale"]
EventResult = Literal["stored", "late", "duplicate", "refused"]
NotificationResult = Literal["sent", "failed", "given_up"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

# The last two are the timeouts of a call and of a token exchange; nothing takes longer.
CALL_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0)

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels in alphabetical order."""


class Metrics:
    """The counters of one process. Thread-safe."""

    def __init__(self) -> None:
        # With PROMETHEUS_MULTIPROC_DIR set, the library would keep counts in files. A process could find the file of an
        # earlier one with the same process id there and count it again.
        values.ValueClass = values.MutexValue
        self.registry = CollectorRegistry()
        self.api_requests = Counter(
            "rdstation_api_requests",
            "Calls to RD Station by operation and class of the HTTP status; none: no response.",
            ["operation", "status_class"],
            registry=self.registry,
        )
        self.api_failures = Counter(
            "rdstation_api_failures",
            "Failed calls to RD Station by operation and reason.",
            ["operation", "reason"],
            registry=self.registry,
        )
        self.api_request_duration = Histogram(
            "rdstation_api_request_duration_seconds",
            "Duration of calls to RD Station, including those without a response.",
            ["operation"],
            buckets=CALL_BUCKETS_S,
            registry=self.registry,
        )
        self._token_refreshes = Counter(
            "rdstation_token_refreshes",
            "Refreshes of access tokens by result; waited: another process was refreshing the same token; second_look:"
            " another try of a refused token, with any result.",
            ["result"],
            registry=self.registry,
        )
        self._auth_failures = Counter(
            "rdstation_auth_failures",
            "Times that RD Station refused a code, a refresh token, an access token or the client credentials.",
            ["stage"],
            registry=self.registry,
        )
        self._leads_served = Counter(
            "rdstation_leads_served",
            "Responses with leads by cache outcome.",
            ["cache"],
            registry=self.registry,
        )
        self._webhook_events = Counter(
            "rdstation_webhook_events",
            "Delivered lead events by result; refused: invalid, in a flood or at a wrong address.",
            ["result"],
            registry=self.registry,
        )
        self._notifications = Counter(
            "rdstation_notifications",
            "Attempts to send a notification by result; failed: will be retried; given_up: will not.",
            ["result"],
            registry=self.registry,
        )
        self._lost_notes = Counter(
            "rdstation_lost_notes",
            "Times of calls, pauses and cached responses that the database did not take; the callers got responses.",
            registry=self.registry,
        )
        self._flush_failures = Counter(
            "rdstation_metrics_flush_failures",
            "Failed attempts to add a process's counts to the database; they are retried.",
            registry=self.registry,
        )
        self._begin_at_zero()

    def token_refresh(self, result: RefreshResult) -> None:
        """Count a refresh; `waited` counts a wait for another process's refresh."""
        self._token_refreshes.labels(result).inc()

    def auth_failure(self, stage: AuthStage) -> None:
        """Count that RD Station refused a code, a token or the client credentials."""
        self._auth_failures.labels(stage).inc()

    def leads_served(self, cache: CacheOutcome) -> None:
        """Count a response with leads, by cache outcome."""
        self._leads_served.labels(cache).inc()

    def webhook_events(self, result: EventResult, number: int) -> None:
        """Count delivered events, by result."""
        self._webhook_events.labels(result).inc(number)

    def notifications(self, result: NotificationResult, number: int = 1) -> None:
        """Count attempts to send a notification, by result."""
        self._notifications.labels(result).inc(number)

    def note_lost(self) -> None:
        """Count that the database did not take what should be recorded after a call to RD Station."""
        self._lost_notes.inc()

    def flush_failure(self) -> None:
        """Count a failed attempt to add this process's counts to the database."""
        self._flush_failures.inc()

    def current(self) -> dict[Series, float]:
        """Return all samples of this process's counters and histograms, counted since its start."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for family in self.registry.collect()
            if family.type in ("counter", "histogram")
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def _begin_at_zero(self) -> None:
        for operation in OPERATIONS:
            self.api_request_duration.labels(operation)
            for status_class in get_args(StatusClass):
                self.api_requests.labels(operation, status_class)
            for reason in get_args(Reason):
                self.api_failures.labels(operation, reason)
        for result in get_args(RefreshResult):
            self._token_refreshes.labels(result)
        for stage in get_args(AuthStage):
            self._auth_failures.labels(stage)
        for cache in get_args(CacheOutcome):
            self._leads_served.labels(cache)
        for result in get_args(EventResult):
            self._webhook_events.labels(result)
        for result in get_args(NotificationResult):
            self._notifications.labels(result)

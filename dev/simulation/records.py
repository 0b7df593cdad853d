"""What the invariants keep: committed rows, counts, and the violation that ends a run."""

from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from dev.simulation.ledger import AccessToken, RefreshToken

KEPT = """
SELECT account_id, refresh_token FROM rdstation_replaced_tokens WHERE account_id = ANY (%(accounts)s)
"""
ROWS = """
SELECT account_id, access_token, refresh_token, status, last_error, authorization_id, stored_claim,
       EXTRACT(epoch FROM due_at)::float8, EXTRACT(epoch FROM second_look_at)::float8,
       EXTRACT(epoch FROM GREATEST(second_look_at, leased_until))::float8
  FROM rdstation_tokens WHERE account_id = ANY (%(accounts)s)
"""
Rule = Literal["lapse", "double", "order", "spin", "notice", "end", "loss", "served"]


class Violation(Exception):
    """An invariant is violated. `account` is '' if the violation concerns no single account."""

    def __init__(self, rule: Rule, what: str, *, account: str, at: float, trail: list[str]) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
        self.what = what
        self.account = account
        self.at = at
        self.trail = trail


class Row(NamedTuple):
    """A committed row of `rdstation_tokens`, with the ledger's view of its tokens."""

    access: AccessToken | None
    refresh_text: str
    refresh: RefreshToken | None
    status: str
    last_error: str | None
    authorization: UUID
    stored_claim: int
    due_at: float
    look_at: float | None
    """When a second look is planned."""
    look_due_at: float | None
    """The same, or the end of a lease."""

    @property
    def final(self) -> bool:
        return self.status == "reauthorization_required"


@dataclass(kw_only=True)
class Counts:
    """Permitted losses that were found."""

    renewals: int = 0
    double_across_pause: int = 0
    double_across_clock_step: int = 0
    revocations_noticed: int = 0
    false_refusals_believed: int = 0
    false_refusals_lifted: int = 0
    held_by_a_stopped_process: int = 0
    served: int = 0

"""Accounts as the pages show them: the state in words and tone, what happens next, and where the buttons lead."""

from dataclasses import dataclass, field

from rdservice.tokens import listing
from rdservice.tokens.listing import State
from rdservice.tokens.store import AccountState
from rdservice.web.http.paths import account_path, login_url, refresh_path
from rdservice.web.text.datetimes import Moment, moment_of
from rdservice.web.text.status_texts import advice, next_step, outcome_words, state_words

TONES: dict[State, str] = {
    "reauthorization_required": "bad",
    "expired": "bad",
    "credentials_refused": "bad",
    "failing": "warn",
    "unverified": "plain",
    "connected": "ok",
}
RENEWABLE = frozenset({"connected", "expired", "unverified", "credentials_refused"})
"""The statuses in which the worker goes on renewing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An account in the reader's language. `tone` is ok, warn, bad or plain."""

    account_id: str
    name: str = field(repr=False)
    """Of the RD Station account, or else the id here."""
    status: str
    state: State
    state_words: str
    tone: str
    next_step: str
    """What happens next, and when."""
    next_tone: str
    advice: str
    """What the operator should do, also when that is nothing."""
    outcome: str
    valid_until: Moment
    valid: bool
    next_renewal: Moment | None
    attempted: Moment | None
    path: str
    login_url: str
    refresh_path: str
    disconnect_path: str
    """Of the page that asks whether that is meant."""


def card(account: AccountState, *, worker_runs: bool = True) -> Card:
    """Return the account for this request's reader."""
    state = listing.state_of(account)
    path = account_path(account.account_id)
    due = moment_of(account.due_at, account.now) if account.status in RENEWABLE else None
    return Card(
        account_id=account.account_id,
        name=account.name or account.account_id,
        status=account.status,
        state=state,
        state_words=state_words(state),
        tone=TONES[state],
        next_step=next_step(state, due=due, overdue=account.due_at <= account.now, worker_runs=worker_runs),
        next_tone=TONES[state] if worker_runs else "bad",
        advice=advice(account.account_id, account.status, account.last_error),
        outcome=outcome_words(account.last_error, attempted=account.attempted_at is not None),
        valid_until=moment_of(account.expires_at, account.now),
        valid=account.expires_at > account.now,
        next_renewal=due,
        attempted=moment_of(account.attempted_at, account.now) if account.attempted_at else None,
        path=path,
        login_url=login_url(account.account_id),
        refresh_path=refresh_path(account.account_id),
        disconnect_path=f"{path}/disconnect",
    )

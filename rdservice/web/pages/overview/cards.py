"""Accounts as pages show them: state with text and tone, next step, and targets of the buttons."""

from dataclasses import dataclass, field

from rdservice.names import account_page
from rdservice.tokens import listing
from rdservice.tokens.listing import State
from rdservice.tokens.store import AccountState
from rdservice.web.http.paths import action_path, disconnect_page, login_url
from rdservice.web.text.datetimes import LocalTime, local_time
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
"""The statuses in which the worker keeps refreshing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An account in the reader's language. `tone` is ok, warn, bad or plain."""

    account_id: str
    name: str = field(repr=False)
    """The name of the RD Station account, or the account id."""
    same_account: list[str]
    """Other account ids that are connected to the same RD Station account."""
    status: str
    state: State
    state_words: str
    tone: str
    next_step: str
    """What happens next, and when."""
    next_tone: str
    advice: str
    """What the operator should do, even if that is nothing."""
    outcome: str
    valid_until: LocalTime
    valid: bool
    next_renewal: LocalTime | None
    attempted: LocalTime | None
    path: str
    login_url: str
    refresh_path: str
    disconnect_path: str
    """The path of the page that asks for confirmation."""
    confirmed_path: str
    """The path to which that page posts."""


def card(account: AccountState, *, worker_runs: bool = True) -> Card:
    """Return the account's card in the language and time zone of this request's reader."""
    state = listing.state_of(account)
    due_at = account.due_at if account.status in RENEWABLE else account.second_look_at
    due = local_time(due_at, account.now) if due_at else None
    return Card(
        account_id=account.account_id,
        name=account.name or account.account_id,
        same_account=account.same_account,
        status=account.status,
        state=state,
        state_words=state_words(state),
        tone=TONES[state],
        next_step=next_step(state, due=due, overdue=account.due_at <= account.now, worker_runs=worker_runs),
        next_tone=TONES[state] if worker_runs else "bad",
        advice=advice(account.account_id, account.status, account.last_error),
        outcome=outcome_words(account.last_error, attempted=account.attempted_at is not None),
        valid_until=local_time(account.expires_at, account.now),
        valid=account.expires_at > account.now,
        next_renewal=due,
        attempted=local_time(account.attempted_at, account.now) if account.attempted_at else None,
        path=account_page(account.account_id),
        login_url=login_url(account.account_id),
        refresh_path=action_path(account.account_id, "refresh"),
        disconnect_path=disconnect_page(account.account_id),
        confirmed_path=action_path(account.account_id, "disconnect"),
    )

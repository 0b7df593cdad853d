"""The overview, the page of an account, and the pages to connect and disconnect one."""

from collections.abc import Mapping

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.accounts.ids import typed_account_id
from rdservice.database.pool import transaction
from rdservice.tokens import listing, store
from rdservice.tokens.listing import STATES, State
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.http import guard
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import services
from rdservice.web.http.paths import login_url
from rdservice.web.pages import live, subscriptions
from rdservice.web.pages.overview import account_list, renewals, traffic
from rdservice.web.pages.overview.cards import card
from rdservice.web.pages.overview.diagnosis import diagnose

bp = Blueprint("status", __name__)


@bp.get("/")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show the overall status, findings and accounts; with one account, its details."""
    wanted = account_list.asked()
    with transaction(services().pool) as conn:
        every = listing.count(conn)
        counts = listing.count(conn, text=wanted.text) if wanted.text else every
        found = listing.read(
            conn,
            counts=counts,
            text=wanted.text,
            state=wanted.state,
            number=wanted.page,
            size=account_list.PAGE_SIZE,
        )
        diagnosis = diagnose(conn, services(), counts=every)
        charts = traffic.read(conn)
        number = sum(every.values())
        timeline = subscribed = None
        if number == 1 and found.accounts:
            (single,) = found.accounts
            timeline = renewals.read(conn, single.account_id, single.now)
            subscribed = subscriptions.section(conn, single.account_id, single.now)
    return live.respond(
        "status.html",
        "status_part.html",
        diagnosis=diagnosis,
        number=number,
        cards=[card(account, worker_runs=diagnosis.worker_runs) for account in found.accounts],
        timeline=timeline,
        subscriptions=subscribed,
        charts=charts,
        wanted=wanted,
        filters=account_list.filters(wanted, counts),
        around=account_list.around(wanted, found),
        own_account=DEFAULT_ACCOUNT,
        login_url=login_url(DEFAULT_ACCOUNT),
    )


@bp.get("/accounts/<account_id>")
@guard.operator_only
def account(account_id: str) -> ResponseReturnValue:
    """Show an account: its state, the next step, its refreshes, and the available actions."""
    account_id = requested_account(account_id)
    with transaction(services().pool) as conn:
        found = store.account_state(conn, account_id)
        if found is None:
            raise _unknown(account_id)
        diagnosis = diagnose(conn, services(), counts=_only(listing.state_of(found)), account_id=account_id)
        timeline = renewals.read(conn, account_id, found.now)
        subscribed = subscriptions.section(conn, account_id, found.now)
        number = sum(listing.count(conn).values())
    return live.respond(
        "account.html",
        "account_part.html",
        card=card(found, worker_runs=diagnosis.worker_runs),
        diagnosis=diagnosis,
        timeline=timeline,
        subscriptions=subscribed,
        number=number,
    )


@bp.get("/accounts/<account_id>/disconnect")
@guard.operator_only
def ask_to_disconnect(account_id: str) -> ResponseReturnValue:
    """Show what is lost with the account, and ask for confirmation."""
    account_id = requested_account(account_id)
    with transaction(services().pool) as conn:
        found = store.account_state(conn, account_id)
        if found is None:
            raise _unknown(account_id)
        others = store.others(conn, account_id)
    return render_template("disconnect.html", operator=guard.actor().label, card=card(found), others=others)


@bp.get("/connect")
@guard.operator_only
def connect() -> ResponseReturnValue:
    """Show a page that opens `/rd/login` for `account_id`.

    A form cannot target `/rd/login`: browsers apply the policy `form-action 'self'` also to redirects after a form, and
    `/rd/login` redirects to RD Station.
    """
    given = request.args.get("account_id", "")
    account_id = typed_account_id(services().pool, given) or DEFAULT_ACCOUNT
    return render_template(
        "connect.html",
        operator=guard.actor().label,
        account_id=account_id,
        login_url=login_url(account_id),
    )


def _unknown(account_id: str) -> errors.NotFound:
    return errors.NotFound(f"No account {account_id!r} is connected.")


def _only(state: State) -> Mapping[State, int]:
    return {one: int(one == state) for one in STATES}

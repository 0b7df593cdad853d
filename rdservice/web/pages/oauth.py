"""Redirects operators to RD Station's consent dialog, and handles the callback (RFC 6749 4.1)."""

from urllib.parse import urlsplit
from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.accounts import connect, decide
from rdservice.accounts.decide import Connected, Question
from rdservice.accounts.ids import check_new_account_id
from rdservice.accounts.waiting_pairs import Owner
from rdservice.web.http import browser_session, guard
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import prefers_html, services
from rdservice.web.http.paths import login_url
from rdservice.web.text.notice_texts import flash_connected, flash_notices
from rdservice.web.text.upload_texts import field_problem

bp = Blueprint("oauth", __name__)

PURPOSE_HEADERS = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")
MOVED = "moved"
"""Marks a redirected request, so that a proxy that changes the Host header does not cause an endless redirect."""


@bp.after_request
def hide_the_address(response: Response) -> Response:
    """Keep the callback's code and state out of the Referer of all further requests."""
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


@bp.get("/rd/login")
@guard.operator_only
def login() -> ResponseReturnValue:
    """Redirect the operator to RD Station's dialog.

    On another host than the redirect URI's, redirect to that host first: RD Station redirects back there, where the
    session's cookie must exist too.
    """
    account_id = requested_account()
    if request.host != urlsplit(services().settings.public_origin).netloc:
        return _to_the_host_of_the_redirect_uri(account_id)
    return redirect(connect.begin(services(), _owner(), account_id=account_id))


def _to_the_host_of_the_redirect_uri(account_id: str) -> ResponseReturnValue:
    if MOVED in request.args:
        raise errors.BadRequest(
            "This service was reached under another host than that of RDSTATION_REDIRECT_URI although the browser was "
            "sent there: the proxy in front must pass the Host header on unchanged."
        )
    return redirect(f"{services().access_tokens.reauthorize_url(account_id)}&{MOVED}=1")


@bp.get("/rd/callback")
@guard.operator_only_at_once
def callback() -> ResponseReturnValue:
    """Complete the authorization, and redirect to the status page, which shows the result, or to the question.

    Browsers may fetch an address that they expect to be visited. That must not use up the code, and they must not keep
    the response.
    """
    purposes = " ".join(request.headers.get(name, "") for name in PURPOSE_HEADERS)
    if request.method == "HEAD" or "prefetch" in purposes or "preview" in purposes:
        return Response(status=503, headers={"Retry-After": "1", "Cache-Control": "no-store"})
    decided = connect.complete(services(), _owner(), callback=request.args, by=guard.author())
    return _next_page(decided)


@bp.get("/rd/authorizations/<pair_id>")
@guard.operator_only
def show(pair_id: str) -> ResponseReturnValue:
    """Ask what to do with tokens that may be of another RD Station account."""
    found = decide.shown(services(), _owner(), pair_id)
    return _question(found) if isinstance(found, Question) else _next_page(found)


@bp.post("/rd/authorizations/<pair_id>")
@guard.operator_only
def answer(pair_id: str) -> ResponseReturnValue:
    """Do what the operator has chosen."""
    choice = request.form.get("choice")
    if choice == "choose":
        account_id = decide.drop(services(), _owner(), pair_id)
        return redirect(url_for("status.connect", account_id=account_id), code=303)
    new_account_id = confirmed = None
    if choice == "replace":
        confirmed = _connection_id(request.form.get("connection_id", ""))
    elif choice == "new":
        try:
            new_account_id = check_new_account_id(request.form.get("account_id", "").strip())
        except errors.InvalidField as error:
            found = decide.shown(services(), _owner(), pair_id)
            if not prefers_html() or not isinstance(found, Question):
                raise
            return _question(found, error)
    elif choice != "again":
        raise errors.InvalidField("choice must be choose, replace, new or again.", extra={"field": "choice"})
    decided = decide.decide(
        services(), _owner(), pair_id, by=guard.author(), account_id=new_account_id, confirmed=confirmed
    )
    return _next_page(decided)


def _owner() -> Owner:
    return Owner(operator_id=guard.actor().id, session_id=browser_session.session_id())


def _connection_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise errors.InvalidField(
            "connection_id must be the one that the page showed.", extra={"field": "connection_id"}
        ) from None


def _next_page(decided: Connected | Question) -> ResponseReturnValue:
    if isinstance(decided, Question):
        return redirect(url_for("oauth.show", pair_id=decided.pair_id), code=303)
    flash_connected(decided.name or decided.account_id)
    flash_notices(decided.warnings)
    return redirect(url_for("status.show"), code=303)


def _question(question: Question, error: errors.InvalidField | None = None) -> ResponseReturnValue:
    page = render_template(
        "authorization.html",
        operator=guard.actor().label,
        question=question,
        login_url=login_url(question.account_id),
        given=request.form.get("account_id", ""),
        problem="" if error is None else field_problem(error),
    )
    return make_response(page, 200 if error is None else error.status)

"""Redirects operators to RD Station's consent dialog, and handles the callback (RFC 6749 4.1)."""

from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, request, url_for
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.accounts import connect
from rdservice.web.http import browser_session, guard
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import services
from rdservice.web.text.notice_texts import flash_connected, flash_notices

bp = Blueprint("oauth", __name__)

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
    dialog = connect.begin(
        services(),
        operator_id=guard.actor().id,
        session_id=browser_session.session_id(),
        account_id=account_id,
    )
    return redirect(dialog)


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
    """Complete the authorization, and redirect to the status page, which shows the result."""
    connected = connect.complete(
        services(),
        operator_id=guard.actor().id,
        session_id=browser_session.session_id(),
        callback=request.args,
        by=guard.author(),
    )
    flash_connected(connected.name or connected.account_id)
    flash_notices(connected.warnings)
    return redirect(url_for("status.show"), code=303)

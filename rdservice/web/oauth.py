"""The way to RD Station's consent dialog and back."""

from urllib.parse import urlsplit

from flask import Blueprint, redirect, request, url_for
from flask.typing import ResponseReturnValue

from rdservice import authorization
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.uploads import check_account_id
from rdservice.web import guard
from rdservice.web.context import services
from rdservice.web.notice_texts import flash_connected, flash_notices

bp = Blueprint("oauth", __name__)


@bp.get("/rd/login")
@guard.operator_only
def login() -> ResponseReturnValue:
    """Send the operator to RD Station's dialog.

    Asked on another host than the redirect URI's, it goes to that one first: RD Station comes back there, and the
    session's cookie must be there too.
    """
    account_id = check_account_id(request.args.get("account_id", DEFAULT_ACCOUNT))
    if request.host != urlsplit(services().settings.redirect_uri).netloc:
        return redirect(services().access_tokens.reauthorize_url(account_id))
    return redirect(authorization.begin(services(), operator_id=guard.actor().id, account_id=account_id))


@bp.get("/rd/callback")
@guard.operator_only
def callback() -> ResponseReturnValue:
    """Finish the authorization and show the status page with what came of it."""
    connected = authorization.complete(services(), operator_id=guard.actor().id, callback=request.args)
    flash_connected(connected.name or connected.account_id)
    flash_notices(connected.warnings)
    return redirect(url_for("status.show"), code=303)

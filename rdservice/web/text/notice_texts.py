"""Flash messages of actions on accounts, in the reader's language."""

from collections.abc import Iterable

from flask import flash

from rdservice.notices import Notice
from rdservice.tokens.refresh import Result
from rdservice.web.text.languages import gettext, page_language


def flash_connected(account: str) -> None:
    """Show on the next page that the account is connected. `account`: its RD Station name, or its id."""
    flash(gettext("Connected: %(account)s. Its tokens are renewed from now on.", account=account), "ok")


def flash_disconnected(account_id: str, *, revoked: bool) -> None:
    if revoked:
        text = gettext(
            "%(account)s is disconnected, and RD Station no longer accepts its tokens.", account=account_id
        )
    else:
        text = gettext("%(account)s is disconnected.", account=account_id)
    flash(text, "ok")


def flash_subscribed(account_id: str, *, changed: bool) -> None:
    if changed:
        text = gettext("RD Station delivers the lead events of %(account)s from now on.", account=account_id)
    else:
        text = gettext(
            "You don't need to do anything: RD Station already delivers the lead events of %(account)s.",
            account=account_id,
        )
    flash(text, "ok")


def flash_unsubscribed(account_id: str, *, changed: bool) -> None:
    if changed:
        text = gettext("RD Station delivers no more lead events of %(account)s.", account=account_id)
    else:
        text = gettext(
            "You don't need to do anything: RD Station delivered no lead events of %(account)s.",
            account=account_id,
        )
    flash(text, "ok")


def flash_refresh(result: Result) -> None:
    """Show on the next page the result of a refresh that the operator requested."""
    texts = {
        Result.STORED: gettext("Renewed: the account has a fresh access token."),
        Result.SUPERSEDED: gettext(
            "You don't need to do anything: the account was renewed or connected again in the meantime."
        ),
        Result.TRANSIENT: gettext(
            "RD Station did not renew the token this time. The renewal is tried again automatically."
        ),
        Result.REFUSED: gettext("RD Station refused to renew: the account must be connected again."),
    }
    flash(texts[result], "ok" if result in (Result.STORED, Result.SUPERSEDED) else "warning")


def flash_notices(notices: Iterable[Notice]) -> None:
    """Show on the next page the warnings of an action that succeeded."""
    for notice in notices:
        flash(notice.told(page_language()), "warning")

"""The form with which operators upload tokens."""

import re
from collections.abc import Mapping

from flask import Blueprint, flash, make_response, redirect, render_template, request
from flask.typing import ResponseReturnValue

from rdservice import errors
from rdservice.accounts import upload as uploads
from rdservice.accounts.ids import is_stored, typed_account_id
from rdservice.errors import RdServiceError
from rdservice.names import account_page, is_segment
from rdservice.rdstation.client import TOKEN_LIFETIME_S
from rdservice.tokens.store import DEFAULT_ACCOUNT
from rdservice.web.http import guard
from rdservice.web.http.context import prefers_html, query_text, request_id, services
from rdservice.web.text.languages import gettext
from rdservice.web.text.notice_texts import flash_notices
from rdservice.web.text.problem_texts import page_text
from rdservice.web.text.upload_texts import field_problem

bp = Blueprint("upload", __name__)

FIELDS = ("account_id", "access_token", "refresh_token", "expires_in")


@bp.get("/upload")
@guard.operator_only
def show() -> ResponseReturnValue:
    """Show the empty form, with `account_id` filled in if given."""
    return _form({"account_id": query_text("account_id") or DEFAULT_ACCOUNT})


@bp.post("/upload")
@guard.operator_only
def upload() -> ResponseReturnValue:
    """Store the pair like `POST /rd/tokens`, or show the form again with error messages."""
    given = {name: request.form.get(name, "").strip() for name in FIELDS}
    given["account_id"] = _fixed_account() or typed_account_id(
        services().pool, request.form.get("account_id", "")
    )
    try:
        pair = uploads.parse_upload(_body(given), services().pool)
        state, warnings = uploads.upload(services(), pair, by=guard.author())
    except (
        errors.InvalidField,
        errors.TokenRefused,
        errors.AnotherAccount,
        errors.RdStationUnavailable,
    ) as error:
        if not prefers_html():
            raise
        return _form(given, error)
    flash(gettext("The tokens of %(account)s are stored.", account=state.account_id), "ok")
    flash_notices(warnings)
    return redirect(account_page(state.account_id), code=303)


def _fixed_account() -> str | None:
    """Return the account that the page's address names if its id cannot be typed, such as one with a line break."""
    named = query_text("account_id")
    return None if named is None or is_segment(named) or not is_stored(services().pool, named) else named


def _body(given: Mapping[str, str]) -> dict[str, object]:
    """Return the form as the JSON that a program would send, without empty fields.

    Keeps an empty `account_id`: without it the account would be `default`, which the form does not show.
    """
    body: dict[str, object] = {name: value for name, value in given.items() if value or name == "account_id"}
    if re.fullmatch(r"[0-9]{1,12}", given["expires_in"]):
        body["expires_in"] = int(given["expires_in"])
    return body


def _form(given: Mapping[str, str], error: RdServiceError | None = None) -> ResponseReturnValue:
    """Return the form. It never contains the tokens that were sent."""
    problems: dict[str, str] = {}
    message = None
    if isinstance(error, errors.InvalidField):
        problems[str(error.extra["field"])] = field_problem(error)
    elif error is not None:
        message = page_text(error.code)
    page = render_template(
        "upload.html",
        operator=guard.actor().label,
        account_id=given["account_id"],
        fixed=_fixed_account() is not None,
        expires_in=given.get("expires_in", str(TOKEN_LIFETIME_S)),
        problems=problems,
        message=message,
        error=error,
        request_id=request_id(),
    )
    response = make_response(page, 200 if error is None else error.status)
    if error is not None and error.retry_after_s is not None:
        response.headers["Retry-After"] = str(round(error.retry_after_s))
    return response

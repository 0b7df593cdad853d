"""Advice for an account of which only the stored state is known, as in a list: the finding that fits that state."""

from rdservice.diagnosis.findings.find import reauthorization_variant
from rdservice.diagnosis.findings.finding import Finding
from rdservice.diagnosis.findings.rdstation_findings import TROUBLES
from rdservice.tokens.store import Status

# Error kinds of `rdservice.rdstation.token_responses` that `TROUBLES` lacks: code and variant of their findings.
_BY_ERROR = {
    "damaged": ("value_damaged", None),
    "no_refresh_token": ("reauthorization_required", "no_refresh_token"),
    "upload_refused": ("upload_refused", None),
    "another_account": ("another_account", None),
    "revoked": ("refresh_refused", None),
    "unauthorized": ("refresh_refused", None),
    "answer_lost": ("refresh_refused", None),
    "credentials": ("credentials_refused", None),
}
_BY_STATUS = {
    "credentials_refused": ("credentials_refused", None),
    "expired": ("token_expired", None),
    "unverified": ("unverified", None),
}


def of_account(account_id: str, status: Status, last_error: str | None) -> Finding | None:
    """Return the finding whose `advice` fits the account's state; None when nothing is wrong."""
    if status == "reauthorization_required":
        if last_error == "damaged":
            return _finding(account_id, "value_damaged", "earlier")
        return _finding(account_id, "reauthorization_required", reauthorization_variant(last_error))
    if status == "credentials_refused":
        return _finding(account_id, *_BY_STATUS[status])
    if last_error is not None:
        known = _BY_ERROR.get(last_error)
        return _finding(account_id, *known or (TROUBLES.get(last_error, "rdstation_failing"), "earlier"))
    return _finding(account_id, *_BY_STATUS[status]) if status in _BY_STATUS else None


def _finding(account_id: str, code: str, variant: str | None) -> Finding:
    return Finding(code=code, severity="warning", account_id=account_id, variant=variant)

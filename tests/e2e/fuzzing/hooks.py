"""What schemathesis cannot know: where callers sit, which tokens and leads RD Station has, what Python can print.

Runs in schemathesis's own process, see `schemathesis.toml`.
"""

import itertools
import os
from typing import Any
from urllib.parse import unquote

import requests
import schemathesis

FORMS = {"logIn", "logOut"}
UPLOADS = {"uploadTokens", "uploadByForm"}
KNOWN = {
    "confirmKeyRevocation": ("key_id", "FUZZING_OTHER_KEY_ID"),
    "revokeKey": ("key_id", "FUZZING_KEY_ID"),
    "deliverEvents": ("secret", "FUZZING_WEBHOOK_SECRET"),
    "subscribeToEvents": ("account_id", "FUZZING_ACCOUNT"),
    "unsubscribeFromEvents": ("account_id", "FUZZING_ACCOUNT"),
}
"""The parts of paths that are given out, and where the test has left one."""
TEXTS = {"account_id", "email", "name", "q", "segmentation", "search"}
_numbers = itertools.count(1)


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out texts that the patterns cannot exclude: they have no name for what is unassigned or invisible."""
    if not _is_positive(case):
        return True
    values = {**(case.path_parameters or {}), **(case.query or {})}
    if isinstance(case.body, dict):
        values |= case.body
    return all(not isinstance(values.get(name), str) or unquote(values[name]).isprintable() for name in TEXTS)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Leave out what gunicorn refuses by itself: the application has not seen it."""
    if response.status_code == 400 and any("_" in name for name in response.request.headers):
        return "x-request-id" in response.headers
    return response.status_code not in {414, 431}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Send what only a caller of this service has."""
    operation = case.operation.definition.raw.get("operationId")
    number = next(_numbers)
    if operation != "getMetrics":
        # From addresses of their own: the throttle for guessing would soon answer everything.
        case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if not _is_positive(case):
        return
    if "leads" in case.operation.tags and number % 4:
        _ask_for_the_known_lead(case)
    if operation in KNOWN:
        name, variable = KNOWN[operation]
        case.path_parameters[name] = os.environ[variable]
    if operation in FORMS:
        case.headers["Cookie"] = os.environ["FUZZING_FORM_COOKIE"]
        case.headers["X-CSRFToken"] = os.environ["FUZZING_FORM_CSRF"]
    if operation in UPLOADS:
        case.body |= _new_pair(number)
        if operation == "uploadTokens":
            # To JSON Schema 3600.0 is an integer, to this service it is none.
            case.body["expires_in"] = int(case.body["expires_in"])


def _ask_for_the_known_lead(case: Any) -> None:
    case.query["account_id"] = "steady"
    known = {"uuid": os.environ["FUZZING_LEAD_UUID"], "email": os.environ["FUZZING_LEAD_EMAIL"]}
    for values in (case.path_parameters, case.body):
        if isinstance(values, dict):
            for name in known.keys() & values.keys():
                values[name] = known[name]


def _is_positive(case: Any) -> bool:
    return case.meta is not None and bool(case.meta.generation.mode.is_positive)


def _new_pair(number: int) -> dict[str, str]:
    """Return tokens that the sandbox accepts, of an RD Station account of their own: revoking one leaves the others."""
    url = os.environ["FUZZING_SANDBOX_URL"]
    client = {"client_id": os.environ["RDSTATION_CLIENT_ID"]}
    form = {"redirect_uri": os.environ["FUZZING_SANDBOX_REDIRECT_URI"], "account": f"account-{number + 1}"}
    consent = requests.post(f"{url}/auth/dialog", data=client | form, allow_redirects=False, timeout=20)
    code = consent.headers["Location"].partition("code=")[2].partition("&")[0]
    secret = {"client_secret": os.environ["RDSTATION_CLIENT_SECRET"], "code": code}
    pair = requests.post(f"{url}/auth/token", json=client | secret, timeout=20).json()
    return {name: pair[name] for name in ("access_token", "refresh_token")}

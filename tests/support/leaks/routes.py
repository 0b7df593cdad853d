"""How each route is asked. A new route needs a line here, with what its answers are meant to show."""

from dataclasses import dataclass
from typing import Any

LEAD = ("lead_email", "lead_phone", "lead_name", "lead_uuid")
EVERYBODY = ("nobody", "malformed", "unknown", "revoked", "narrow", "key", "operator")


@dataclass(frozen=True)
class Ask:
    """`path`, `json` and `form` have the names of planted values in braces; `shows` are those that answers may hold.

    `by` are asked in this order; the last one must be answered with `status`.
    """

    path: str
    shows: tuple[str, ...] = ()
    by: tuple[str, ...] = EVERYBODY
    status: int = 200
    json: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    html: bool = False
    headers: dict[str, str] | None = None


UPLOAD = {
    "access_token": "{sandbox_access_token}",
    "refresh_token": "{sandbox_refresh_token}",
    "expires_in": 86400,
    "account_id": "{account}",
}
HAND_MADE = UPLOAD | {
    "access_token": "{uploaded_access_token}",
    "refresh_token": "{uploaded_refresh_token}",
    "account_id": "default",
}
DELIVERY = {
    "event_type": "WEBHOOK.CONVERTED",
    "contact": {
        "uuid": "{lead_uuid}",
        "email": "{lead_email}",
        "mobile_phone": "{lead_phone}",
        "name": "{lead_name}",
    },
}
UPLOAD_FORM = {
    "access_token": "{uploaded_access_token}",
    "refresh_token": "{uploaded_refresh_token}",
    "expires_in": "86400",
    "account_id": "default",
}
CALLBACK = "/rd/callback?code={wrong_code}&state={wrong_state}"
ACCOUNT = {"RD-Account": "{account}"}
PAGE = ("operator_email", "account_name")

ROUTES: dict[str, tuple[Ask, ...]] = {
    "GET /static/<path:filename>": (Ask("/static/site.css"), Ask("/static/{lead_email}", status=404)),
    "GET /healthz": (Ask("/healthz"),),
    "GET /readyz": (Ask("/readyz"),),
    "GET /openapi.json": (Ask("/openapi.json"),),
    "GET /metrics": (Ask("/metrics", by=("nobody", "key", "metrics")),),
    "GET /login": (
        Ask("/login?next=/rd/leads/{lead_uuid}", by=("nobody", "key"), shows=("lead_uuid",), html=True),
    ),
    "POST /login": (
        Ask(
            "/login",
            by=("nobody",),
            form={"email": "{lead_email}", "password": "{wrong_password}"},
            status=401,
        ),
    ),
    "GET /": (
        Ask("/", shows=PAGE, html=True),
        Ask("/", shows=PAGE),
        Ask("/?fragment=1", shows=PAGE),
        Ask("/?q={lead_email}", shows=(*PAGE, "lead_email"), html=True),
    ),
    "GET /audit": (Ask("/audit", shows=PAGE, html=True),),
    "GET /keys": (Ask("/keys", shows=PAGE, html=True),),
    "POST /keys": (
        Ask("/keys", shows=PAGE, form={"name": "a program", "scopes": "leads:read"}, html=True, status=201),
        Ask("/keys", form={"name": "{lead_email}", "scopes": "{lead_phone}"}, status=422),
    ),
    "GET /keys/<key_id>/revoke": (Ask("/keys/{lead_phone}/revoke", html=True, status=404),),
    "POST /keys/<key_id>/revoke": (Ask("/keys/{lead_phone}/revoke", html=True, status=404),),
    "GET /diagnosis": (Ask("/diagnosis", shows=PAGE, html=True),),
    "POST /diagnosis": (Ask("/diagnosis", html=True),),
    "GET /password": (Ask("/password", shows=PAGE, html=True),),
    "POST /password": (
        Ask(
            "/password",
            shows=PAGE,
            form={
                "current_password": "{wrong_password}",
                "new_password": "{new_password}",
                "new_password_again": "{new_password}",
            },
            html=True,
            status=422,
        ),
    ),
    "GET /language": (
        Ask(
            "/language?language=en&next=/rd/leads/email/{lead_email}",
            shows=("lead_email",),
            status=302,
            html=True,
        ),
    ),
    "GET /notifications": (Ask("/notifications", shows=PAGE, html=True),),
    "POST /notifications/test": (
        Ask(
            "/notifications/test",
            by=("nobody", "malformed", "unknown", "revoked", "narrow", "key"),
            status=403,
        ),
        Ask("/notifications/test", by=("nobody", "operator"), status=303, html=True),
    ),
    "GET /connect": (Ask("/connect?account_id={account}", shows=PAGE, html=True),),
    "GET /accounts/<account_id>": (
        Ask("/accounts/{account}", shows=PAGE, html=True),
        Ask("/accounts/{account}?fragment=1", shows=PAGE),
        Ask("/accounts/{lead_email}", status=404, shows=("lead_email",), html=True),
    ),
    "GET /accounts/<account_id>/disconnect": (Ask("/accounts/{account}/disconnect", shows=PAGE, html=True),),
    "GET /upload": (Ask("/upload?account_id={account}", shows=PAGE, html=True),),
    "POST /upload": (
        Ask("/upload", form=UPLOAD_FORM | {"expires_in": "soon"}, shows=PAGE, status=422, html=True),
        Ask("/upload", form=UPLOAD_FORM, status=422, shows=PAGE, html=True),
    ),
    "GET /rd/login": (Ask("/rd/login?account_id={account}", status=302, html=True),),
    "GET /rd/callback": (
        Ask(CALLBACK, status=400),
        Ask(CALLBACK, status=400, html=True),
    ),
    "POST /rd/tokens": (Ask("/rd/tokens", json=UPLOAD), Ask("/rd/tokens", json=HAND_MADE, status=422)),
    "GET /rd/tokens": (Ask("/rd/tokens", shows=("account_name",)),),
    "GET /rd/tokens/<account_id>/access-token": (
        Ask("/rd/tokens/{account}/access-token", shows=("stored_access_token*", "sandbox_access_token")),
    ),
    "POST /rd/tokens/<account_id>/refresh": (
        Ask("/rd/tokens/{account}/refresh", shows=("account_name",)),
        Ask("/rd/tokens/{account}/refresh", html=True, status=303),
    ),
    "GET /rd/leads": (Ask("/rd/leads?account_id={account}&order=created_at:desc", shows=LEAD),),
    "GET /rd/leads/export": (
        Ask("/rd/leads/export?account_id={account}&segmentation=1", shows=LEAD),
        Ask("/rd/leads/export?account_id={account}&segmentation=7&format=csv", shows=LEAD),
        Ask("/rd/leads/export?account_id={account}&after={lead_phone}", status=422),
    ),
    "GET /rd/leads/<lead_name:uuid>": (
        Ask("/rd/leads/{lead_uuid}?account_id={account}", shows=LEAD),
        Ask("/rd/leads/{lead_phone}?account_id={account}", status=422),
    ),
    "GET /rd/leads/email/<path:email>": (
        Ask("/rd/leads/email/{lead_email}?account_id={account}", shows=LEAD),
    ),
    "POST /rd/leads/lookup": (
        Ask("/rd/leads/lookup?account_id={account}", shows=LEAD, json={"email": "{lead_email}"}),
    ),
    "GET /rd/api/<path:path>": (
        Ask("/rd/api/platform/segmentations/1/contacts?page_size=125", shows=LEAD, headers=ACCOUNT),
        Ask("/rd/api/platform/contacts/email:{lead_email}", shows=LEAD, headers=ACCOUNT),
        Ask("/rd/api/auth/token?code={wrong_code}", status=403, headers=ACCOUNT),
        Ask("/rd/api/platform%00{lead_email}", status=400, headers=ACCOUNT),
    ),
    "POST /rd/api/<path:path>": (
        Ask(
            "/rd/api/platform/contacts",
            json={"email": "{lead_email}"},
            shows=LEAD,
            status=400,
            headers=ACCOUNT,
        ),
    ),
    "PUT /rd/api/<path:path>": (
        Ask(
            "/rd/api/platform/contacts/email:{lead_email}/funnels/default",
            json={"lifecycle_stage": "Client"},
            shows=LEAD,
            headers=ACCOUNT,
        ),
    ),
    "PATCH /rd/api/<path:path>": (
        Ask(
            "/rd/api/platform/contacts/email:{lead_email}",
            json={"name": "{lead_name}"},
            shows=LEAD,
            headers=ACCOUNT,
        ),
    ),
    "DELETE /rd/api/<path:path>": (
        Ask("/rd/api/integrations/webhooks/{lead_uuid}", status=404, headers=ACCOUNT),
    ),
    "POST /rd/privacy/erase": (
        Ask("/rd/privacy/erase", json={"email": "{lead_email}"}),
        Ask("/rd/privacy/erase", json={"uuid": "{lead_uuid}"}),
        Ask("/rd/privacy/erase", json={"email": "{lead_phone}"}, status=422),
    ),
    "POST /rd/webhooks/<secret>": (
        Ask("/rd/webhooks/{wrong_secret}", by=("nobody", "key"), status=404, json=DELIVERY),
        Ask("/rd/webhooks/{webhook_secret}", by=("nobody", "key"), json=DELIVERY),
        Ask("/rd/webhooks/{webhook_secret}", by=("nobody",), status=422, json={"leads": "{lead_email}"}),
    ),
    "GET /rd/authorizations/<pair_id>": (
        Ask("/rd/authorizations/{lead_phone}", shows=PAGE, status=404, html=True),
    ),
    "POST /rd/authorizations/<pair_id>": (
        Ask("/rd/authorizations/{lead_phone}", shows=PAGE, form={"choice": "again"}, status=404, html=True),
        Ask("/rd/authorizations/{lead_phone}", form={"choice": "{lead_email}"}, status=422),
    ),
    "GET /rd/events": (Ask("/rd/events?account_id={account}", shows=LEAD),),
    "POST /rd/tokens/<account_id>/subscribe": (
        Ask("/rd/tokens/{account}/subscribe"),
        Ask("/rd/tokens/{account}/subscribe", shows=("account",), html=True, status=303),
    ),
    "POST /rd/tokens/<account_id>/unsubscribe": (
        Ask("/rd/tokens/{account}/unsubscribe"),
        Ask("/rd/tokens/{account}/unsubscribe", shows=("account",), html=True, status=303),
    ),
    "GET /rd/segmentations": (Ask("/rd/segmentations?account_id={account}"),),
    "DELETE /rd/tokens/<account_id>": (Ask("/rd/tokens/{account}", by=("nobody", "narrow", "key")),),
    "POST /rd/tokens/<account_id>/disconnect": (
        Ask("/rd/tokens/{account}/disconnect", shows=PAGE, status=404, html=True),
    ),
    "POST /logout": (Ask("/logout", by=("nobody", "operator"), status=303, html=True),),
}

ENDING = ("DELETE /rd/tokens/<account_id>", "POST /rd/tokens/<account_id>/disconnect", "POST /logout")
"""After these there is no account, or no session: they come last."""

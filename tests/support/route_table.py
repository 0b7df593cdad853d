"""The routes of the web application, with those who may call each."""

import itertools
from dataclasses import dataclass

SCOPES = ["tokens:write", "tokens:status", "tokens:read", "leads:read", "api:call", "privacy:erase"]

ROUTES = """
GET HEAD   /                                    operator        200
GET HEAD   /connect                             operator        200
GET HEAD   /accounts/<account_id>               operator        404 not_found
GET HEAD   /accounts/<account_id>/disconnect    operator        404 not_found
GET HEAD   /upload                              operator        200
POST       /upload                              operator        422 invalid_field
GET HEAD   /audit                               operator        200
GET HEAD   /keys                                operator        200
POST       /keys                                operator        201
GET HEAD   /keys/<key_id>/revoke                operator        404 not_found
POST       /keys/<key_id>/revoke                operator        404 not_found
GET HEAD   /diagnosis                           operator        200
POST       /diagnosis                           operator        200
GET HEAD   /password                            operator        200
POST       /password                            operator        303
GET HEAD   /language                            anyone          422 invalid_field
GET HEAD   /notifications                       operator        200
POST       /notifications/test                  operator        303
GET HEAD   /rd/login                            operator        302
GET        /rd/callback                         operator        400 invalid_state
HEAD       /rd/callback                         operator        503
GET HEAD   /rd/authorizations/<pair_id>         operator        404 not_found
POST       /rd/authorizations/<pair_id>         operator        422 invalid_field
POST       /rd/tokens                           tokens:write    422 invalid_field
GET HEAD   /rd/tokens                           tokens:status   200
DELETE     /rd/tokens/<account_id>              tokens:write    404 not_found
GET HEAD   /rd/tokens/<account_id>/access-token tokens:read     409 not_connected
POST       /rd/tokens/<account_id>/refresh      tokens:write    409 not_connected
POST       /rd/tokens/<account_id>/subscribe    tokens:write    409 not_connected
POST       /rd/tokens/<account_id>/unsubscribe  tokens:write    409 not_connected
POST       /rd/tokens/<account_id>/disconnect   operator        404 not_found
GET HEAD   /rd/leads                            leads:read      409 not_connected
GET HEAD   /rd/leads/export                     leads:read      409 not_connected
GET HEAD   /rd/leads/<lead_name:uuid>           leads:read      409 not_connected
GET HEAD   /rd/leads/email/<path:email>         leads:read      409 not_connected
POST       /rd/leads/lookup                     leads:read      409 not_connected
GET HEAD   /rd/segmentations                    leads:read      409 not_connected
GET HEAD   /rd/events                           leads:read      409 not_connected
POST       /rd/webhooks/<secret>                anyone          404 not_found
GET HEAD OPTIONS /rd/api/<path:path>            api:call        409 not_connected
POST PUT PATCH DELETE /rd/api/<path:path>       api:call        409 not_connected
POST       /rd/privacy/erase                    privacy:erase   422 invalid_field
GET HEAD   /login                               visitor         200
POST       /login                               form            303
POST       /logout                              form            303
GET HEAD   /healthz                             anyone          200
GET HEAD   /readyz                              anyone          200
GET HEAD   /openapi.json                        anyone          200
GET HEAD   /static/<path:filename>              anyone          200
GET HEAD   /metrics                             anyone          403 insufficient_scope
"""
"""`/metrics` is for this machine or METRICS_TOKEN, whatever else comes along: see metrics/test_access.py."""

SAFE = {"GET", "HEAD", "OPTIONS"}
SAMPLES = {
    "<account_id>": "absent",
    "<key_id>": "absent",
    "<pair_id>": "absent",
    "<lead_name:uuid>": "7a1f8e0c-2b0c-4b0e-9b57-7d1f4f0c2a11",
    "<path:email>": "nobody@example.com",
    "<path:path>": "platform/contacts/fields",
    "<path:filename>": "site.css",
    "<secret>": "A" * 43,
}


@dataclass(frozen=True, slots=True)
class Route:
    """One route with one method: a line of ROUTES, or the OPTIONS that Flask handles for it."""

    method: str
    rule: str
    who: str
    status: int
    code: str | None

    @property
    def path(self) -> str:
        path = self.rule
        for variable, value in SAMPLES.items():
            path = path.replace(variable, value)
        return path

    @property
    def column(self) -> str:
        """The column of CALLERS that applies."""
        if self.who in ("anyone", "form", "visitor"):
            return self.who
        kind = "unsafe" if self.method not in SAFE else "GET" if self.method == "GET" else "HEAD"
        return f"{'operator' if self.who == 'operator' else 'scope'} {kind}"


def routes() -> list[Route]:
    found = []
    for line in ROUTES.strip().splitlines():
        words = line.split()
        at = next(number for number, word in enumerate(words) if word.startswith("/"))
        rule, who, status, *code = words[at:]
        found += [Route(method, rule, who, int(status), code[0] if code else None) for method in words[:at]]
    # Flask handles it automatically, for those whom the first line of the rule lets in without a CSRF token.
    for rule, same in itertools.groupby(
        sorted(found, key=lambda route: route.rule), lambda route: route.rule
    ):
        who = first if (first := next(same).who) == "operator" or first in SCOPES else "anyone"
        if not any((route.rule, route.method) == (rule, "OPTIONS") for route in found):
            found.append(Route("OPTIONS", rule, who, 200, None))
    return found

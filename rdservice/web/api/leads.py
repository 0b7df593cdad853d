"""Serves leads and segmentations: RD Station's bodies, from the cache while they are fresh."""

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import RequestCacheControl
from werkzeug.http import parse_cache_control_header, parse_etags
from werkzeug.routing import BaseConverter

from rdservice import errors
from rdservice.cache.entries import Served
from rdservice.leads import parameters, queries, segmentations
from rdservice.web.http import guard
from rdservice.web.http.accounts import requested_account
from rdservice.web.http.context import json_body, query_text, services

bp = Blueprint("leads", __name__)

FRESH_EVERY_S = 5.0
"""Minimum interval between two calls for the same content, however many clients send `no-cache`."""


class LeadName(BaseConverter):
    """A path segment that may be a lead's UUID. Excludes the names of other routes, so that those respond with 405."""

    regex = "(?!(?:lookup|export)$)[^/]+"
    part_isolating = True


def init_app(app: Flask) -> None:
    """Prepare `app` for the routes of `bp`. Call before it is registered."""
    app.url_map.converters["lead_name"] = LeadName


@bp.get("/rd/leads")
@guard.requires("leads:read")
def list_leads() -> ResponseReturnValue:
    """List the leads of a segmentation, or all leads. `fast_reads` responds instead if they are in memory."""
    segmentation = query_text("segmentation")
    listing = parameters.parse_listing(query_text("page"), query_text("page_size"), query_text("order"))
    served = queries.list_leads(
        services(), requested_account(), segmentation, listing, max_age_s=_max_age_s()
    )
    return _respond_leads(served)


@bp.get("/rd/leads/<lead_name:uuid>")
@guard.requires("leads:read")
def show(uuid: str) -> ResponseReturnValue:
    """Show one lead."""
    return _respond_leads(queries.lead_by_uuid(services(), requested_account(), uuid, max_age_s=_max_age_s()))


@bp.get("/rd/leads/email/<path:email>")
@guard.requires("leads:read")
def show_by_email(email: str) -> ResponseReturnValue:
    """Show the lead with this e-mail address."""
    return _respond_leads(
        queries.lead_by_email(services(), requested_account(), email, max_age_s=_max_age_s())
    )


@bp.post("/rd/leads/lookup")
@guard.requires("leads:read")
def look_up() -> ResponseReturnValue:
    """Show the lead with the e-mail address in the body. Proxies do not log bodies."""
    body = json_body()
    if not isinstance(body, dict):
        raise errors.BadRequest('Send a JSON object, such as {"email": "ana@example.com"}.')
    served = queries.lead_by_email(services(), requested_account(), body.get("email"), max_age_s=_max_age_s())
    return _respond_leads(served)


@bp.get("/rd/segmentations")
@guard.requires("leads:read")
def list_segmentations() -> ResponseReturnValue:
    """List the segmentations."""
    listing = parameters.parse_listing(
        query_text("page"), query_text("page_size"), query_text("order"), query_text("search")
    )
    return _respond(
        segmentations.list_segmentations(services(), requested_account(), listing, max_age_s=_max_age_s())
    )


def _max_age_s() -> float | None:
    """Return the maximum age that the client accepts (RFC 9111 5.2.1), in seconds; None: the default."""
    given = request.headers.get("Cache-Control", "").lower()
    asked = parse_cache_control_header(given, cls=RequestCacheControl)
    oldest_s = 0 if asked.no_cache else asked.max_age
    max_age_s = services().settings.cache_ttl_s
    if oldest_s is None or oldest_s >= max_age_s:
        return None
    return max(float(oldest_s), min(FRESH_EVERY_S, max_age_s))


def _respond_leads(served: Served) -> Response:
    services().metrics.leads_served(served.state)
    return _respond(served)


def _respond(served: Served) -> Response:
    """Return the content, or 304 if the client has it already (RFC 9110 13.1.2).

    Leads are personal data, so only clients may store it (`private`), and must revalidate it (`no-cache`).
    """
    headers = response_headers_of(served)
    if request.method != "POST" and has(request.headers.get("If-None-Match"), served.content.etag):
        return Response(status=304, headers=headers)
    return Response(served.content.body, headers=headers, content_type="application/json")


def response_headers_of(served: Served) -> list[tuple[str, str]]:
    """Return the headers of a response with this content."""
    return [
        ("ETag", served.content.etag),
        ("Age", str(int(served.age_s))),
        ("X-Cache", served.state),
        ("Cache-Control", "private, no-cache"),
        *served.content.paging,
    ]


def has(if_none_match: str | None, etag: str) -> bool:
    """Return whether `if_none_match`, the value of that header or None, matches the entity tag."""
    if if_none_match is None:
        return False
    known = parse_etags(if_none_match)
    return known.star_tag or known.contains_weak(etag.strip('"'))

"""Other collections that public connectors read: e-mails, landing pages, pop-ups, flows, fields, analytics.

They are small, generated from the seed, and have the forms that Airbyte's connector (source-rd-station-marketing,
manifest.yaml) and the official Ruby client (spec/lib/rdstation) read.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sandbox.errors import ValidationError, not_found
from sandbox.generated import FIRST_CREATED_AT, account_id, number_of, timestamp
from sandbox.messages import ApiResponse, Call, json_response
from sandbox.paging import Page
from sandbox.state import State

DAY_S = 86_400
TITLES = (
    "Boas-vindas",
    "Desconto de maio",
    "E-book de vendas",
    "Convite para o webinar",
    "Pesquisa",
    "Novidades",
)
COUNT = len(TITLES)
YEARS = range(2000, 2100)
FIELDS = (
    ("name", "STRING", "Nome completo", "TEXT_INPUT", False),
    ("email", "STRING", "E-mail", "EMAIL_INPUT", False),
    ("job_title", "STRING", "Cargo", "TEXT_INPUT", False),
    ("personal_phone", "STRING", "Telefone", "PHONE_INPUT", False),
    ("mobile_phone", "STRING", "Celular", "PHONE_INPUT", False),
    ("city", "STRING", "Cidade", "TEXT_INPUT", False),
    ("cf_segmento", "STRING", "Segmento", "COMBO_BOX", True),
    ("cf_numero_de_funcionarios", "STRING", "Número de funcionários", "RADIO_BUTTON", True),
)


def _created(position: int) -> float:
    return FIRST_CREATED_AT + position * 40 * DAY_S


def _common(state: State, call: Call, kind: str, position: int) -> dict[str, Any]:
    return {
        "id": number_of(state.seed, call.account, kind, position) % 9_000_000 + 1_000_000,
        "title": TITLES[position],
        "created_at": timestamp(_created(position)),
        "updated_at": timestamp(_created(position) + 3 * DAY_S),
        "conversion_identifier": f"{kind}-{position + 1}",
        "status": "PUBLISHED" if position % 3 else "DRAFT",
    }


def _paged(call: Call, items: list[dict[str, Any]]) -> ApiResponse:
    page = Page.of(call.request.query)
    return json_response(items[page.start : page.start + page.size], headers=page.headers(len(items)))


def landing_pages(state: State, call: Call) -> ApiResponse:
    """`GET /platform/landing_pages`"""
    more = {"has_active_experiment": False, "had_experiment": False}
    return _paged(call, [_common(state, call, "landing-page", position) | more for position in range(COUNT)])


def popups(state: State, call: Call) -> ApiResponse:
    """`GET /platform/popups`"""
    items = [_common(state, call, "popup", position) | {"trigger": "EXIT_INTENT"} for position in range(3)]
    return _paged(call, items)


def embeddables(state: State, call: Call) -> ApiResponse:
    """`GET /platform/embeddables`"""
    return _paged(call, [_common(state, call, "form", position) for position in range(4)])


def _emails(state: State, call: Call) -> list[dict[str, Any]]:
    return [
        {
            "id": number_of(state.seed, call.account, "email", position) % 9_000_000 + 1_000_000,
            "name": TITLES[position],
            "created_at": timestamp(_created(position)),
            "updated_at": timestamp(_created(position) + DAY_S),
            "send_at": timestamp(_created(position) + 2 * DAY_S),
            "leads_count": state.settings.leads * (position + 1) // COUNT,
            "status": "FINISHED",
            "type": "email_model",
            "is_predictive_sending": False,
            "sending_is_imminent": False,
            "behavior_score_info": {
                "disengaged": False,
                "engaged": position % 2 == 0,
                "indeterminate": False,
            },
            "campaign_id": 6_000_000 + position,
            "component_template_id": 100 + position,
        }
        for position in range(COUNT)
    ]


def list_emails(state: State, call: Call) -> ApiResponse:
    """`GET /platform/emails`"""
    page = Page.of(call.request.query)
    emails = _emails(state, call)
    body = {"items": emails[page.start : page.start + page.size], "total": len(emails)}
    return json_response(body, headers=page.headers(len(emails)))


def get_email(state: State, call: Call) -> ApiResponse:
    """`GET /platform/emails/{id}`"""
    for email in _emails(state, call):
        if str(email["id"]) == call.path["id"]:
            return json_response(email)
    raise not_found()


def list_fields(state: State, _call: Call) -> ApiResponse:
    """`GET /platform/contacts/fields`"""
    fields = [
        {
            "uuid": str(UUID(int=number_of(state.seed, "field", name) << 64 | position, version=4)),
            "api_identifier": name,
            "custom_field": custom,
            "data_type": data_type,
            "name": {"default": label, "pt-BR": label},
            "label": {"default": label, "pt-BR": label},
            "presentation_type": presentation,
            "validation_rules": {},
        }
        for position, (name, data_type, label, presentation, custom) in enumerate(FIELDS)
    ]
    return json_response({"fields": fields})


def workflows(state: State, call: Call) -> ApiResponse:
    """`GET /platform/workflows`"""
    page = Page.of(call.request.query)
    items = [
        {
            "id": _workflow_id(state, call, position),
            "name": f"Fluxo {TITLES[position]}",
            "user_email_created": "marketing@example.com",
            "user_email_updated": "marketing@example.com",
            "created_at": timestamp(_created(position)),
            "updated_at": timestamp(_created(position) + DAY_S),
        }
        for position in range(3)
    ]
    return json_response(
        {"workflows": items[page.start : page.start + page.size]}, headers=page.headers(len(items))
    )


def _workflow_id(state: State, call: Call, position: int) -> str:
    return str(
        UUID(int=number_of(state.seed, call.account, "workflow", position) << 64 | position, version=4)
    )


def _analytics(state: State, call: Call, name: str, rows: list[dict[str, Any]], **more: Any) -> ApiResponse:
    start, end = _period(state, call)
    return json_response(
        {
            "account_id": account_id(state.seed, call.account),
            "query_date": {"start_date": start.isoformat(), "end_date": end.isoformat()},
            **more,
            name: rows,
        }
    )


def _period(state: State, call: Call) -> tuple[date, date]:
    """`start_date` and `end_date` (YYYY-MM-DD); by default the last 30 days."""
    today = datetime.fromtimestamp(state.now(), UTC).date()
    end = _day(call, "end_date", today)
    return _day(call, "start_date", end - timedelta(days=29)), end


def _day(call: Call, name: str, default: date) -> date:
    text = call.request.query.get(name)
    if text is None:
        return default
    try:
        day = date.fromisoformat(text[:10])
    except ValueError:
        day = None
    if day is None or day.year not in YEARS:
        problem = {
            "error_type": "INVALID_FORMAT",
            "error_message": "Invalid format.",
            "path": f"query.{name}",
        }
        raise ValidationError([problem])
    return day


def analytics_conversions(state: State, call: Call) -> ApiResponse:
    """`GET /platform/analytics/conversions`"""
    rows = []
    for position in range(COUNT):
        visits = 200 + number_of(state.seed, call.account, "visits", position) % 2_000
        rows.append(
            {
                "asset_id": number_of(state.seed, call.account, "landing-page", position) % 9_000_000
                + 1_000_000,
                "asset_identifier": TITLES[position],
                "asset_type": "LandingPage",
                "asset_created_at": timestamp(_created(position)),
                "asset_updated_at": timestamp(_created(position) + 3 * DAY_S),
                "visits_count": visits,
                "conversions_count": visits // 10,
                "conversion_rate": round(visits // 10 * 100 / visits, 1),
            }
        )
    return _analytics(state, call, "conversions", rows, assets_type="[LandingPage]")


def _email_counts(contacts: int) -> dict[str, Any]:
    delivered = contacts - contacts // 50
    return {
        "contacts_count": contacts,
        "email_delivered_count": delivered,
        "email_dropped_count": contacts - delivered,
        "email_unsubscribed_count": contacts // 200,
        "email_spam_reported_count": contacts // 1_000,
        "email_delivered_rate": round(delivered * 100 / contacts, 1),
        "email_opened_rate": round(contacts // 3 * 100 / delivered, 1),
        "email_clicked_rate": round(contacts // 9 * 100 / delivered, 1),
        "email_spam_reported_rate": round(contacts // 1_000 * 100 / delivered, 1),
    }


def analytics_emails(state: State, call: Call) -> ApiResponse:
    """`GET /platform/analytics/emails`"""
    rows = []
    for position in range(COUNT):
        contacts = 100 + number_of(state.seed, call.account, "sent", position) % 900
        rows.append(
            {
                "campaign_id": 6_000_000 + position,
                "campaign_name": TITLES[position],
                "send_at": timestamp(_created(position) + 2 * DAY_S),
                **_email_counts(contacts),
                "email_bounced_count": contacts // 100,
                "email_opened_count": contacts // 3,
                "email_clicked_count": contacts // 9,
            }
        )
    return _analytics(state, call, "emails", rows)


def analytics_funnel(state: State, call: Call) -> ApiResponse:
    """`GET /platform/analytics/funnel`: one row per day, at most the first 366 days."""
    start, end = _period(state, call)
    rows = []
    for day in range(min((end - start).days + 1, 366)):
        reference_day = (start + timedelta(days=day)).isoformat()
        visitors = 50 + number_of(state.seed, call.account, "funnel", reference_day) % 500
        rows.append(
            {
                "reference_day": reference_day,
                "visitors_count": visitors,
                "contacts_count": visitors // 8,
                "qualified_contacts_count": visitors // 20,
                "opportunities_count": visitors // 60,
                "sales_count": visitors // 150,
            }
        )
    return _analytics(state, call, "funnel", rows)


def analytics_workflow_emails(state: State, call: Call) -> ApiResponse:
    """`GET /platform/analytics/workflow_emails`"""
    rows = []
    for position in range(3):
        contacts = 100 + number_of(state.seed, call.account, "workflow-sent", position) % 900
        rows.append(
            {
                "workflow_id": _workflow_id(state, call, position),
                "workflow_name": f"Fluxo {TITLES[position]}",
                "workflow_action_id": f"{position + 1:024x}",
                "email_name": TITLES[position],
                "created_at": timestamp(_created(position)),
                "updated_at": timestamp(_created(position) + DAY_S),
                **_email_counts(contacts),
                "count_processed": contacts,
                "email_opened_unique_count": contacts // 3,
                "email_clicked_unique_count": contacts // 9,
                "email_bounced_unique_count": contacts // 100,
            }
        )
    return _analytics(state, call, "workflow_email_statistics", rows)

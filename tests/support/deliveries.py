"""What RD Station delivers, and addresses at which it may."""

from typing import Any

from rdservice.database.pool import transaction
from rdservice.events import store as events_store
from rdservice.events.payloads import Delivery, read
from rdservice.events.store import Added, Hashes
from rdservice.events.subscriptions import store as subscriptions
from rdservice.services import Services

ANA = "c2f3d2b3-7250-4d27-97f4-eef38be32f7f"
BIA = "0b0e5f66-3f8e-4b0e-9b57-7d1f4f0c2a11"


def open_address(services: Services, account_id: str = "default") -> str:
    """Return the secret of an address at which the account's events are taken, as a subscription leaves it."""
    with transaction(services.pool) as conn:
        secret = subscriptions.begin(conn, account_id)
        assert secret is not None
        ids = {"WEBHOOK.CONVERTED": "one", "WEBHOOK.MARKED_OPPORTUNITY": "two"}
        subscriptions.complete(conn, account_id, subscriptions.hash_of(secret), ids)  # type: ignore[arg-type]
    return secret


def event(
    *,
    event_type: str = "WEBHOOK.CONVERTED",
    identifier: str | None = "newsletter",
    at: str = "2026-03-13T14:07:04.254-03:00",
    uuid: str = ANA,
    email: str = "ana@example.com",
    **contact: Any,
) -> dict[str, Any]:
    """Return a delivery as documented."""
    return {
        "event_type": event_type,
        "entity_type": "CONTACT",
        "event_identifier": identifier,
        "timestamp": "2026-03-13T14:09:02.724-03:00",
        "event_timestamp": at,
        "contact": {
            "uuid": uuid,
            "email": email,
            "name": "Ana Souza",
            "tags": ["tag 1"],
            "funnel": {"name": "default", "lifecycle_stage": "Lead", "opportunity": False},
            **contact,
        },
    }


def old_lead(*, uuid: str = ANA, at: str = "2026-03-13T14:07:04-03:00", **more: Any) -> dict[str, Any]:
    """Return a lead as the older webhooks deliver it, in `{"leads": […]}`."""
    return {
        "id": "1",
        "uuid": uuid,
        "email": "ana@example.com",
        "name": "Ana Souza",
        "company": "Company Name",
        "created_at": "2012-06-04T15:31:35-03:00",
        "opportunity": "false",
        "number_conversions": "3",
        "first_conversion": {
            "content": {"identificador": "ebook-abc", "email_lead": "ana@example.com"},
            "created_at": "2012-06-04T15:31:35-03:00",
            "cumulative_sum": "1",
            "source": "source 1",
        },
        "last_conversion": {
            "content": {"identificador": "webinar-abc", "email_lead": "ana@example.com"},
            "created_at": at,
            "cumulative_sum": "2",
            "source": "source 2",
        },
        "custom_fields": {},
        "lead_stage": "Lead",
        "tags": ["tag 1", "tag 2"],
        "fit_score": "d",
        "interest": 0,
        **more,
    }


def add(services: Services, secret: str, *bodies: dict[str, Any]) -> Added:
    """Store events in one transaction."""
    delivery: Delivery = read(list(bodies))
    with transaction(services.pool) as conn:
        stream = subscriptions.find(conn, secret)
        assert stream is not None
        hashes = Hashes(services.settings.secret_key)
        return events_store.add(conn, services.keys, hashes, stream, delivery.events)

"""Lists segmentations and their contacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.contact_book import LISTING_ORDERS, Membership
from sandbox.errors import not_found
from sandbox.generated import FIRST_CREATED_AT, timestamp
from sandbox.messages import ApiResponse, Call, json_response
from sandbox.paging import Page, order_of
from sandbox.state import State

DAY_S = 86_400


@dataclass(frozen=True)
class Segmentation:
    id: int
    name: str
    standard: bool
    members: Membership

    @property
    def created_at(self) -> float:
        return FIRST_CREATED_AT + self.id * 30 * DAY_S

    @property
    def updated_at(self) -> float:
        return self.created_at + (self.id * 7 % 11) * DAY_S

    def as_json(self, origin: str) -> dict[str, Any]:
        href = f"{origin}/platform/segmentations/{self.id}/contacts"
        return {
            "id": self.id,
            "name": self.name,
            # Documented: null, not false, for segmentations that are not standard.
            "standard": True if self.standard else None,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
            "process_status": "processed",
            "links": [
                {"rel": "SEGMENTATIONS.CONTACTS", "href": href, "media": "application/json", "type": "GET"},
            ],
        }


# The remainders of the funnel's stages correspond to generated.STAGES.
SEGMENTATIONS = (
    Segmentation(1, "Todos os contatos da base de Leads", True, Membership(created=True)),
    Segmentation(
        2, "Leads (estágio no funil)", True, Membership(modulus=10, remainders=(3, 4, 5, 6, 7, 8, 9))
    ),
    Segmentation(3, "Leads Qualificados (estágio no funil)", True, Membership(modulus=10, remainders=(1, 2))),
    Segmentation(4, "Clientes (estágio no funil)", True, Membership(modulus=10, remainders=(0,))),
    Segmentation(5, "Assinantes da newsletter", False, Membership(modulus=3)),
    Segmentation(6, "Baixaram o e-book", False, Membership(modulus=7, remainders=(1, 4))),
    Segmentation(7, "Participantes do webinar", False, Membership(modulus=11, remainders=(5,))),
    Segmentation(8, "Sem interação há 90 dias", False, Membership(modulus=4, remainders=(3,))),
    Segmentation(9, "Visitantes da página de preços", False, Membership(modulus=23, remainders=(2, 20))),
    Segmentation(10, "Importação vazia", False, Membership(modulus=1, remainders=())),
)
ORDERS = ("id", "name", "process_status", "created_at", "updated_at")


def list_segmentations(_state: State, call: Call) -> ApiResponse:
    """`GET /platform/segmentations?page=&page_size=&search=&order=`"""
    query = call.request.query
    page = Page.of(query)
    name, descending = order_of(query, ORDERS, "id")
    found = list(SEGMENTATIONS)
    if query.get("search"):
        # Documented: a search does not return standard segmentations.
        wanted = query["search"].casefold()
        found = [entry for entry in found if not entry.standard and wanted in entry.name.casefold()]
    found.sort(key=lambda entry: getattr(entry, name, ""), reverse=descending)
    shown = found[page.start : page.start + page.size]
    body = {"segmentations": [entry.as_json(call.request.origin) for entry in shown]}
    return json_response(body, headers=page.headers(len(found)))


def list_contacts(state: State, call: Call) -> ApiResponse:
    """`GET /platform/segmentations/{id}/contacts?page=&page_size=&order=`"""
    wanted = call.path["id"]
    segmentation = next((entry for entry in SEGMENTATIONS if str(entry.id) == wanted), None)
    if segmentation is None:
        raise not_found()
    page = Page.of(call.request.query)
    order = order_of(call.request.query, LISTING_ORDERS, "created_at")
    book, leads = state.book(call.account), state.settings.leads
    contacts = book.page(segmentation.members, leads, order, page.start, page.size)
    body = {"contacts": [contact.listed(call.request.origin) for contact in contacts]}
    return json_response(body, headers=page.headers(book.count(segmentation.members, leads)))

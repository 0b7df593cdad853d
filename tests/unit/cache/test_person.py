"""Whose data a text or a lead is: whole addresses and identifiers, never parts of them."""

import json

import pytest

from rdservice.cache.person import Person

UUID = "c2f3d2b3-7250-4d27-97f4-eef38be32f7f"

INSIDE_OTHERS = [
    ("joao@empresa.com", "joao@empresa.com.br"),
    ("ana@example.com", "mariana@example.com"),
    ("paula@example.com", "ana.paula@example.com"),
    ("promo@example.com", "ana+promo@example.com"),
    ("ana@example.com", "ana+promo@example.com"),
    ("ana@example.com", "ANA@EXAMPLE.COM.AR"),
    ("ana@example.com", "Mariana@Example.com"),
    ("silva@example.com", "ana-silva@example.com"),
    ("silva@example.com", "ana_silva@example.com"),
    ("brien@example.com", "o'brien@example.com"),
    ("ana@example.com", "ana@example.com-novo.br"),
    ("ana@example.com", "ana@example.community"),
    ("na@example.com", "éna@example.com"),
    ("ana@example.com", "ana@example.coma\u0301"),
    ("क@example.com", "अ\u093fक@example.com"),
    ("strauss@example.com", "strauß@example.com"),
]
ENCODED_INSIDE_OTHERS = [
    ("joao@empresa.com", "joao%40empresa.com%2Ebr"),
    ("joao@empresa.com", "joao%2540empresa.com%252Ebr"),
    ("joao@empresa.com", "joao@empresa.com%2Ebr"),
    ("paula@example.com", "ana%2Epaula%40example.com"),
    ("promo@example.com", "ana%2Bpromo%40example.com"),
    ("bana@example.com", "%2Bana@example.com"),
    ("ana@example.com", "mari%61na@example.com"),
    ("ana@example.com", "%E9ana@example.com"),
]
SURROUNDED = [
    "{}",
    "mail to {}, please",
    "Write to {}.",
    "Escreva para <{}>; obrigado",
    "“{}”",
    "(mailto:{})",
    "https://example.org/optout?e={}&t=1",
    "https://example.org/leads/{}/edit#{}",
    "example.org/?a=b&{}",
    "{}...",
    "'{}'",
    "ana@other.example;{}",
    '{{"nested": "text\\n{}"}}',
]


@pytest.mark.parametrize("surrounded", SURROUNDED)
@pytest.mark.parametrize(("address", "other"), INSIDE_OTHERS)
def test_a_part_of_an_address_is_nobody(address: str, other: str, surrounded: str) -> None:
    text = surrounded.replace("{}", other).replace("{{", "{").replace("}}", "}")
    assert not Person.of(address).is_in(json.dumps({"cf_notes": text}).encode())
    assert Person.of(other).is_in(json.dumps({"cf_notes": text}).encode())


@pytest.mark.parametrize("surrounded", ["{}", "https://example.org/?e={}", "https://example.org/{}/x"])
@pytest.mark.parametrize(("address", "other"), ENCODED_INSIDE_OTHERS)
def test_an_encoded_address_has_no_parts_either(address: str, other: str, surrounded: str) -> None:
    assert not Person.of(address).is_in(json.dumps([surrounded.replace("{}", other)]).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"contacts": [{"name": "x", "email": "Jos\\u00e9@Example.com"}]}',
        '{"a": [[{"b": "mail to JOSÉ@example.com, please"}]]}'.encode(),
        '{"José@example.com": 1}'.encode(),
        '"jose\u0301@example.com"'.encode(),
        "not JSON, but josé@example.com".encode(),
        b"[" * 100_000 + "josé@example.com".encode(),
        b'{"url": "https://example.org/?e=jos%C3%A9%40example.com"}',
        b'{"url": "https://example.org/?u=https%3A%2F%2Fexample.org%2F%3Fe%3Djos%25C3%25A9%2540EXAMPLE.com"}',
        ("[" * 900 + '"josé@example.com"' + "]" * 900).encode(),
        b'{"cf_json": "{\\"mail\\": \\"jos\\\\u00e9@example.com\\"}"}',
    ],
)
def test_an_address_is_found_in_whatever_case_and_escape(body: bytes) -> None:
    assert Person.of(" José@Example.com ").is_in(body)
    assert not Person.of("other@example.com").is_in(body)


def test_a_domain_in_its_ascii_form_is_the_same_domain() -> None:
    assert Person.of("ana@xn--exmple-qta.com").is_in('["ana@exámple.com"]'.encode())
    assert Person.of("ana@exámple.com").is_in(b'["ANA@XN--EXMPLE-QTA.com"]')


def test_an_address_with_the_signs_of_urls_is_one_address_where_a_lead_has_it() -> None:
    lead = b'{"uuid": null, "email": "a=b/joao@empresa.com"}'
    assert not Person.of("joao@empresa.com").is_in(lead)
    assert Person.of("A=b/joao@empresa.com").is_in(lead)


def test_a_uuid_is_found_whole_and_in_any_case() -> None:
    person = Person.of_uuid(UUID.upper())
    assert person.is_in(json.dumps({"href": f"https://api.rd.services/platform/contacts/{UUID}"}).encode())
    assert not person.is_in(json.dumps({"id": f"{UUID}-1"}).encode())
    assert not person.is_in(json.dumps({"id": f"a{UUID}"}).encode())


def test_long_texts_cost_no_more_than_their_length() -> None:
    endless = "a." * 30_000
    assert not Person.of("ana@example.com").is_in(json.dumps([endless, endless + "@" * 1_000]).encode())


def test_a_person_s_representation_does_not_name_the_person() -> None:
    person = Person.of("ana@example.com")
    assert "ana" not in repr(person)
    assert UUID not in repr(Person.of_uuid(UUID))

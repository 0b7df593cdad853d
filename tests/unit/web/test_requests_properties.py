"""Whatever callers send and RD Station answers: what is accepted is usable everywhere, the rest is named."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from rdservice.access import keys, operators
from rdservice.accounts import upload
from rdservice.accounts.ids import LONGEST_ACCOUNT_ID, check_new_account_id
from rdservice.cache.entries import Content
from rdservice.errors import BadRequest, InvalidField, RdServiceError
from rdservice.leads.fetch import has_list, is_contact
from rdservice.leads.parameters import LARGEST_PAGE_SIZE, check_email, parse_listing
from rdservice.leads.segmentations import SEGMENTATION_ID, _segmentations
from rdservice.names import is_readable
from rdservice.rdstation.client import ApiResponse
from rdservice.rdstation.token_responses import MAX_LIFETIME_S, is_token
from rdservice.tokens.identity import LONGEST_NAME, name_in
from tests.support.outside_data import ANY_JSON, NUMBERS, ODD_TEXTS, TEXTS, TOKENS, bodies, encoded, objects

ACCOUNTS = st.one_of(TEXTS, ODD_TEXTS, st.sampled_from(["default", "..", ".", "a b", " a", "é", "e\u0301"]))
UPLOADS = st.one_of(
    objects(
        access_token=TOKENS,
        refresh_token=TOKENS,
        expires_in=NUMBERS,
        account_id=ACCOUNTS,
        verify=st.booleans(),
    ),
    ANY_JSON,
)
EMAILS = st.one_of(
    st.emails(),
    ODD_TEXTS,
    st.builds("{}@{}".format, ODD_TEXTS, st.sampled_from(["example.com", "", "b", "\0", "\ufffd"])),
)


def refusal(error: RdServiceError) -> bool:
    """Return whether an error blames what was sent, and names it without repeating it."""
    return isinstance(error, BadRequest) or (isinstance(error, InvalidField) and bool(error.extra["field"]))


@given(UPLOADS)
def test_an_upload_is_usable_or_its_field_is_named(body: Any) -> None:
    try:
        given_pair = upload.parse_upload(body)
    except RdServiceError as error:
        blamed = error
        assert refusal(blamed)
        if isinstance(body, dict):
            values = [
                value for name, value in body.items() if name.endswith("_token") and isinstance(value, str)
            ]
            assert not any(len(value) > 12 and value in blamed.detail for value in values)
        return
    assert is_token(given_pair.access_token)
    assert is_token(given_pair.refresh_token)
    assert type(given_pair.expires_in_s) is int
    assert 1 <= given_pair.expires_in_s <= MAX_LIFETIME_S
    assert check_new_account_id(given_pair.account_id) == given_pair.account_id


@given(st.one_of(ACCOUNTS, ANY_JSON))
def test_an_account_s_name_can_stand_in_a_row_a_path_and_a_log_line(value: Any) -> None:
    try:
        name = check_new_account_id(value)
    except InvalidField as error:
        blamed = error.extra
        assert blamed == {"field": "account_id"}
        return
    assert name == value
    assert 1 <= len(name) <= LONGEST_ACCOUNT_ID
    assert is_readable(name)
    assert "/" not in name
    assert name.strip() == name
    assert name not in {".", ".."}
    name.encode()


@given(st.text(st.characters()))
@example("\0")
@example("\ud800")
@example("\ufffd")
def test_a_readable_text_can_be_stored_sent_and_seen(text: str) -> None:
    if is_readable(text):
        assert "\0" not in text
        assert len(text.splitlines()) <= 1
        assert text.encode().decode() == text


@given(
    *[st.one_of(st.none(), NUMBERS.map(str), ODD_TEXTS, st.from_regex(r"\A[a-z_]{1,9}:(asc|desc)\n?\Z"))] * 3
)
def test_a_listing_that_is_accepted_is_one_that_rd_station_can_read(
    page: str | None, page_size: str | None, order: str | None
) -> None:
    try:
        listing = parse_listing(page, page_size, order)
    except InvalidField as error:
        blamed = error.extra["field"]
        assert blamed in {"page", "page_size", "order"}
        return
    assert 1 <= listing.page <= 10**9
    assert 1 <= listing.page_size <= LARGEST_PAGE_SIZE
    assert all(str(value).isascii() and len(str(value).split()) == 1 for value in listing.query.values())


@given(st.one_of(EMAILS, ANY_JSON))
def test_an_address_that_is_looked_up_is_a_readable_one(value: Any) -> None:
    try:
        address = check_email(value)
    except InvalidField as error:
        detail = error.detail
        assert not isinstance(value, str) or len(value) < 9 or value not in detail
        return
    assert address == value
    assert is_readable(address)
    assert "@" in address[1:-1]


@given(EMAILS)
def test_an_operator_s_address_has_one_form(email: str) -> None:
    try:
        once = operators.normalize_email(email)
    except InvalidField:
        return
    assert operators.normalize_email(once) == once
    assert operators.normalize_email(f" {email.upper().lower()}\n") == operators.normalize_email(
        email.upper().lower()
    )
    assert is_readable(once)


@given(st.one_of(ODD_TEXTS, st.text(), st.from_regex(r"\Ardk_[a-z2-7]{8}_[A-Za-z0-9_-]{43}\n?\Z")))
def test_a_text_with_the_form_of_a_key_is_ascii_and_nothing_more(text: str) -> None:
    match = keys.KEY_PATTERN.fullmatch(text)
    if match is not None:
        assert text.isascii()
        assert text == f"rdk_{match[1]}_{match[2]}"


@given(st.one_of(objects(name=st.one_of(TEXTS, ODD_TEXTS, st.text(min_size=190, max_size=250))), ANY_JSON))
@example({"name": "x" * 199 + " y"})
def test_an_account_s_name_at_rd_station_is_short_and_readable_and_stays_so(body: Any) -> None:
    name = name_in(body)
    if name is not None:
        assert 1 <= len(name) <= LONGEST_NAME
        assert is_readable(name)
        assert name_in({"name": name}) == name


SEGMENTATIONS = st.lists(
    objects(
        id=st.one_of(st.integers(), ODD_TEXTS, st.sampled_from([True, "..", "1/2", "\ud800", "7"])),
        name=ODD_TEXTS,
        standard=st.booleans(),
    ),
    max_size=4,
)


@given(bodies(st.one_of(objects(segmentations=SEGMENTATIONS), ANY_JSON)))
@example(encoded({"segmentations": [{"id": "\ud800", "name": "x"}, {"id": True}, {"id": ".."}]}))
def test_segmentations_of_an_accepted_body_have_ids_that_can_stand_in_a_path(body: bytes) -> None:
    response = ApiResponse(operation="segmentations_list", status=200, headers={}, body=body)
    if not has_list("segmentations")(response.json()):
        return
    for segmentation in _segmentations(Content.of(body, ())):
        assert SEGMENTATION_ID.fullmatch(segmentation.id)
        assert isinstance(segmentation.name, str)


@given(bodies(st.one_of(objects(contacts=st.lists(ANY_JSON, max_size=3), uuid=ODD_TEXTS), ANY_JSON)))
def test_leads_are_accepted_in_their_shape_alone(body: bytes) -> None:
    decoded = ApiResponse(operation="contacts_list", status=200, headers={}, body=body).json()
    if has_list("contacts")(decoded):
        assert all(isinstance(contact, dict) for contact in decoded["contacts"])
    if is_contact(decoded):
        assert isinstance(decoded["uuid"], str)

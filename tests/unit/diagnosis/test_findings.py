"""Findings from plain facts: which ones, in which order, how serious, and in words that both languages have."""

from typing import Any

import pytest

from rdservice.config.problems import Problem
from rdservice.diagnosis.facts.types import (
    Account,
    Clocks,
    Facts,
    Network,
    Probe,
    StoredValue,
)
from rdservice.diagnosis.findings.find import find
from rdservice.diagnosis.findings.finding import duration
from rdservice.diagnosis.findings.guide import GUIDE
from rdservice.diagnosis.findings.verdict import ORDER
from rdservice.diagnosis.findings.words import WORDS
from rdservice.text.catalogue import LANGUAGES
from tests.support.facts import FORBIDDEN, WELL, account, all_facts, all_findings, claims, database


def found(*accounts: Account, **facts: Any) -> list[tuple[str, str]]:
    """Return code and severity of each finding about these accounts."""
    made = find(Facts(database=database(*(accounts or (WELL,))), probed_account="default", **facts))
    return [(finding.words, finding.severity) for finding in made]


def test_a_well_account_gives_no_finding() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "expired", "life_left_s": -5.0}, [("token_expired", "error")]),
        ({"status": "unverified"}, [("unverified", "info")]),
        (
            {"status": "reauthorization_required", "last_error": "revoked", "life_left_s": -5.0},
            [("reauthorization_required", "error")],
        ),
        (
            {"status": "reauthorization_required", "last_error": "answer_lost"},
            [("reauthorization_required/answer_lost", "error")],
        ),
        (
            {"status": "reauthorization_required", "last_error": "no_refresh_token"},
            [("reauthorization_required/no_refresh_token", "error")],
        ),
        (
            {"status": "reauthorization_required", "last_error": "damaged"},
            [("value_damaged/earlier", "error")],
        ),
        (
            {
                "status": "reauthorization_required",
                "last_error": "damaged",
                "refresh_token": StoredValue(key_id="0badcafe", state="damaged"),
            },
            [("value_damaged", "error")],
        ),
        ({"last_error": "unauthorized"}, [("refresh_refused", "warning")]),
        ({"last_error": "upload_refused"}, [("upload_refused", "warning")]),
        ({"last_error": "another_account"}, [("another_account", "warning")]),
        ({"last_error": "timeout"}, [("rdstation_unreachable/earlier", "warning")]),
        (
            {"last_error": "connection", "status": "expired", "life_left_s": -1.0},
            [("rdstation_unreachable/earlier", "error"), ("token_expired", "error")],
        ),
        ({"last_error": "server_error"}, [("rdstation_failing/earlier", "warning")]),
        ({"last_error": "client_error"}, [("rdstation_unexpected/earlier", "warning")]),
        ({"last_error": "rate_limited"}, [("rate_limited/earlier", "warning")]),
        (
            {"last_error": "timeout", "retry_in_s": 30.0, "failures": 2},
            [("rdstation_unreachable/earlier", "warning"), ("refresh_backing_off", "info")],
        ),
        (
            {"status": "credentials_refused", "last_error": "credentials"},
            [("credentials_refused/earlier", "warning")],
        ),
        ({"access_token": StoredValue(key_id="12345678", state="key_missing")}, [("key_missing", "error")]),
        ({"refresh_token": StoredValue(key_id=None, state="plain")}, [("token_not_encrypted", "error")]),
        ({"refresh_token": StoredValue(key_id="0badcafe", state="unknown")}, []),
        ({"claims": claims("audience_differs")}, [("audience_old", "warning")]),
        ({"claims": claims("scope_missing")}, [("scope_missing", "warning")]),
    ],
)
def test_an_account_s_state_is_named(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(account(**changes)) == expected


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (Probe(result="ok", http_status=200), []),
        (Probe(result="skipped", reason="no"), []),
        (Probe(result="failed", error="timeout"), [("rdstation_unreachable", "error")]),
        (Probe(result="failed", error="bad_payload", http_status=200), [("rdstation_failing", "error")]),
        (Probe(result="failed", error="client_error", http_status=302), [("rdstation_unexpected", "error")]),
        (Probe(result="failed", error="rate_limited", http_status=429), [("rate_limited", "warning")]),
        (Probe(result="skipped", error="rate_limited"), [("rate_limited/budget", "warning")]),
        (Probe(result="failed", error="forbidden", http_status=403), [("forbidden_by_gateway", "error")]),
        (FORBIDDEN, [("forbidden_api", "error")]),
        (
            Probe(result="failed", error="unauthorized", http_status=401),
            [("unauthorized_api/same_token", "error")],
        ),
        (
            Probe(result="failed", error="unauthorized", http_status=401, renewed=True),
            [("unauthorized_api", "error")],
        ),
    ],
)
def test_what_came_of_the_call_for_leads_is_named(probe: Probe, expected: list[tuple[str, str]]) -> None:
    assert found(leads=probe) == expected


def test_a_token_that_was_renewed_a_moment_ago_counts_as_new() -> None:
    refused = Probe(result="failed", error="unauthorized", http_status=401)
    assert found(leads=refused, refresh=Probe(result="stored")) == [("unauthorized_api", "error")]


def test_a_missing_scope_is_the_cause_once_rd_station_forbids_leads() -> None:
    refused = FORBIDDEN
    assert found(account(claims=claims("scope_missing")), leads=refused) == [
        ("scope_missing", "error"),
        ("forbidden_api", "error"),
    ]


def test_what_one_account_met_says_nothing_of_another_account_s_token() -> None:
    refused = FORBIDDEN
    other = account(account_id="other", claims=claims("scope_missing"))
    assert found(WELL, other, leads=refused) == [("forbidden_api", "error"), ("scope_missing", "warning")]


def test_a_token_that_covers_leads_and_may_not_read_them_points_to_the_plan() -> None:
    assert found(account(claims=claims()), leads=FORBIDDEN) == [("plan_without_api", "error")]


@pytest.mark.parametrize(
    ("connectivity", "words"),
    [
        (Network(host="api", port=443, failed_at="dns", error="unknown"), "rdstation_unreachable/dns"),
        (Network(host="api", port=443, failed_at="tcp", error="refused"), "rdstation_unreachable/tcp"),
        (Network(host="api", port=443, failed_at="tls", error="expired"), "rdstation_unreachable/tls"),
        (Network(host="api", port=443, tls_ms=5), "rdstation_unreachable/silent"),
        (Network(host="api", port=443, through_proxy=True), "rdstation_unreachable"),
        (None, "rdstation_unreachable"),
    ],
)
def test_it_is_told_how_far_the_way_to_rd_station_is_open(connectivity: Network | None, words: str) -> None:
    silent = Probe(result="failed", error="timeout")
    assert found(leads=silent, network=connectivity) == [(words, "error")]
    if connectivity is not None and connectivity.failed_at is not None:
        assert found(leads=Probe(result="skipped"), network=connectivity) == [(words, "error")]


def test_a_way_that_opened_meanwhile_is_no_trouble() -> None:
    closed = Network(host="api", port=443, failed_at="tcp", error="refused")
    assert found(leads=Probe(result="ok", http_status=200), network=closed) == []


@pytest.mark.parametrize(
    ("rdstation_s", "database_s", "expected"),
    [
        (2.0, 0.0, []),
        (-59.0, 0.0, []),
        (-61.0, 0.0, [("clock_skew", "warning")]),
        (61.0, 0.0, [("clock_skew/behind", "warning")]),
        (7200.0, 0.0, [("clock_skew/behind", "error")]),
        (300.0, 300.0, [("clock_skew/machine_behind", "warning")]),
        (-300.0, -300.0, [("clock_skew/machine", "warning")]),
        (300.0, None, [("clock_skew/machine_behind", "warning")]),
        (None, 300.0, []),
    ],
)
def test_the_clock_that_is_wrong_is_named(
    rdstation_s: float | None, database_s: float | None, expected: list[tuple[str, str]]
) -> None:
    assert found(clocks=Clocks(rdstation_s=rdstation_s, database_s=database_s)) == expected


def test_a_dialog_that_does_not_open_is_serious_once_somebody_must_connect() -> None:
    refused = Probe(result="failed", error="refused", http_status=400)
    assert found(dialog=refused) == [("redirect_uri_not_registered", "warning")]
    dead = account(status="reauthorization_required", last_error="revoked")
    assert found(dead, dialog=refused) == [
        ("redirect_uri_not_registered", "error"),
        ("reauthorization_required", "error"),
    ]
    nobody = find(Facts(database=database(), dialog=refused))
    assert [finding.code for finding in nobody] == ["redirect_uri_not_registered", "no_account"]


@pytest.mark.parametrize("form", ["swapped", "id_form"])
def test_what_the_form_of_the_credentials_says_is_told_once_they_are_refused(form: Any) -> None:
    assert find(Facts(database=database(WELL), client_mixed_up=form)) == []
    (only,) = find(Facts(database=database(WELL, credentials_closed_for_s=60.0), client_mixed_up=form))
    assert only.words == f"credentials_refused/{form}"
    shown = Probe(result="ok", http_status=200)
    (only,) = find(
        Facts(database=database(WELL, credentials_closed_for_s=60.0), client_mixed_up=form, dialog=shown)
    )
    assert only.words == "credentials_refused"


def test_the_trouble_of_this_run_is_told_and_not_that_of_an_earlier_one_with_it() -> None:
    down = Probe(result="transient", error="connection")
    assert found(account(last_error="connection"), refresh=down) == [("rdstation_unreachable", "error")]


def test_accounts_with_the_same_trouble_are_one_finding() -> None:
    accounts = [account(account_id=str(number), last_error="timeout") for number in range(3)]
    (only,) = find(Facts(database=database(*accounts)))
    assert "3 accounts" in only.text("en").seen
    (only,) = find(Facts(database=database(*accounts, more_accounts=True)))
    assert "3+ accounts" in only.text("en").seen


@pytest.mark.parametrize(
    ("silent_s", "expected"),
    [
        (59.0, []),
        (60.0, [("worker_not_running", "error")]),
        (None, [("worker_not_running/never", "error")]),
    ],
)
def test_a_worker_counts_as_running_for_a_minute_after_its_beat(
    silent_s: float | None, expected: list[tuple[str, str]]
) -> None:
    made = find(Facts(database=database(WELL, worker_silent_s=silent_s)))
    assert [(finding.words, finding.severity) for finding in made] == expected


def test_refused_credentials_are_one_finding_for_all_accounts() -> None:
    accounts = [
        account(account_id=str(number), status="credentials_refused", last_error="credentials")
        for number in range(3)
    ]
    made = find(Facts(database=database(*accounts, credentials_closed_for_s=120.0)))
    assert [(finding.words, finding.severity, finding.account_id) for finding in made] == [
        ("credentials_refused", "error", None)
    ]


def test_nothing_is_known_without_a_database_but_that() -> None:
    made = find(Facts(database_error="connection refused", database_reached=False))
    assert [finding.code for finding in made] == ["database_unreachable"]


def chain(*accounts: Account, **facts: Any) -> list[tuple[str, str | None]]:
    """Return code and cause of each finding about these accounts."""
    made = find(Facts(database=database(*accounts), probed_account="default", **facts))
    return [(finding.code, finding.follows_from) for finding in made]


def test_causes_come_before_what_they_bring_about() -> None:
    late = account(status="expired", life_left_s=-60.0, last_error="timeout", retry_in_s=20.0)
    made = find(
        Facts(
            settings_problems=(Problem(variable="SECRET_KEY", code="not_set", example="x"),),
            pending_migrations=("0009_later",),
            database=database(late, account(account_id="b", status="unverified"), worker_silent_s=None),
        )
    )
    assert [(finding.code, finding.follows_from) for finding in made] == [
        ("settings_broken", None),
        ("worker_not_running", "settings_broken"),
        ("token_expired", "settings_broken"),
        ("refresh_backing_off", "settings_broken"),
        ("unverified", "settings_broken"),
        ("migrations_pending", None),
        ("rdstation_unreachable", None),
    ]


def test_refusals_together_are_to_blame_for_each_of_them_and_not_for_a_damaged_value() -> None:
    refused = {"status": "reauthorization_required", "last_error": "revoked"}
    made = find(
        Facts(
            database=database(
                *(account(account_id=name, **refused) for name in "abcde"),
                account(account_id="f", status="reauthorization_required", last_error="damaged"),
                refused_together=5,
            )
        )
    )
    causes = [finding for finding in made if finding.follows_from is None]
    assert [(finding.code, finding.who) for finding in causes] == [
        ("value_damaged", "operator"),
        ("refused_together", "rdstation"),
    ]
    assert "RD Station refused 5 accounts within minutes" in causes[1].text("en").seen


def test_a_wrong_secret_is_to_blame_for_every_account_that_expired() -> None:
    refused = {"status": "credentials_refused", "last_error": "credentials", "life_left_s": -5.0}
    made = find(
        Facts(
            database=database(
                *(account(account_id=name, **refused) for name in "ab"), credentials_closed_for_s=9.0
            )
        )
    )
    assert [(finding.code, finding.follows_from) for finding in made] == [
        ("credentials_refused", None),
        ("token_expired", "credentials_refused"),
        ("token_expired", "credentials_refused"),
    ]
    assert [(finding.who, finding.action) for finding in made] == [
        ("server", "none"),
        *[("nobody", "none")] * 2,
    ]


def test_a_damaged_token_is_to_blame_for_its_own_account_alone() -> None:
    damaged = StoredValue(key_id="0badcafe", state="damaged")
    expired = {"status": "expired", "life_left_s": -5.0}
    assert chain(account(refresh_token=damaged, **expired), account(account_id="other", **expired)) == [
        ("value_damaged", None),
        ("token_expired", "value_damaged"),
        ("token_expired", None),
    ]


def test_a_worker_that_stopped_for_want_of_a_key_follows_from_the_key_and_the_expiries_from_both() -> None:
    missing = StoredValue(key_id="12345678", state="key_missing")
    expired = {"status": "expired", "life_left_s": -5.0}
    accounts = (account(access_token=missing, **expired), account(account_id="other", **expired))
    made = find(Facts(database=database(*accounts, worker_silent_s=None)))
    assert [(finding.code, finding.account_id, finding.follows_from) for finding in made] == [
        ("key_missing", "default", None),
        ("worker_not_running", None, "key_missing"),
        ("token_expired", "other", "worker_not_running"),
        ("token_expired", "default", "key_missing"),
    ]


def test_what_is_serious_is_told_before_what_is_only_to_be_feared() -> None:
    worried = account(claims=claims("scope_missing"), last_error="upload_refused")
    assert chain(worried, account(account_id="b", status="expired", life_left_s=-5.0)) == [
        ("token_expired", None),
        ("upload_refused", None),
        ("scope_missing", None),
    ]


def test_every_consequence_stands_behind_its_cause() -> None:
    for facts in all_facts():
        seen: set[str] = set()
        for finding in find(facts):
            assert finding.follows_from is None or finding.follows_from in seen
            seen.add(finding.code)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-3, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (7_200, "2 h"), (90_061, "1 d 1 h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_every_code_and_every_sentence_is_reached() -> None:
    made = all_findings()
    assert {finding.code for finding in made} == set(ORDER)
    assert {finding.words for finding in made} == set(WORDS)
    assert set(GUIDE) == set(WORDS)


def test_every_finding_has_all_its_sentences_in_both_languages() -> None:
    for finding in all_findings():
        for language in LANGUAGES:
            for sentence in finding.text(language):
                assert sentence, finding.words
                assert "%(" not in sentence
                assert "None" not in sentence
        assert finding.text("en") != finding.text("pt-BR")


@pytest.mark.parametrize(
    ("accounts", "more", "seen"),
    [
        (1, False, "A última renovação de uma conta falhou: o RD Station teve um erro."),
        (2, False, "A última renovação de 2 contas falhou: o RD Station teve um erro."),
        (2, True, "A última renovação de 2+ contas falhou: o RD Station teve um erro."),
    ],
)
def test_the_number_of_accounts_chooses_the_sentence(accounts: int, more: bool, seen: str) -> None:
    hit = [account(account_id=str(number), last_error="server_error") for number in range(accounts)]
    (only,) = find(Facts(database=database(*hit, more_accounts=more)))
    assert only.text("pt-BR").seen == seen
    assert only.reference == "rdstation_failing: server_error"


@pytest.mark.parametrize(
    ("left_s", "words"),
    [
        (54_180.0, "Programs keep reading its leads for another 15 h 3 min."),
        (-1.0, "Programs no longer get its leads."),
    ],
)
def test_an_account_to_authorize_again_says_how_long_its_leads_are_served(left_s: float, words: str) -> None:
    (only,) = find(Facts(database=database(account(status="reauthorization_required", life_left_s=left_s))))
    assert only.text("en").meaning.endswith(words)


def test_the_way_to_reconnect_works_for_any_name() -> None:
    (only,) = find(
        Facts(database=database(account(account_id="filial 2 & co", status="reauthorization_required")))
    )
    assert "/rd/login?account_id=filial%202%20%26%20co" in only.text("en").todo


def test_notifications_that_do_not_arrive_are_told_with_the_kinds_of_their_errors() -> None:
    facts = Facts(database=database(WELL, failed_notifications=("timeout", "http_500", "timeout")))
    (finding,) = find(facts)
    assert (finding.code, finding.severity, finding.who) == ("notifications_failing", "warning", "server")
    assert finding.reference == "notifications_failing: http_500, timeout"

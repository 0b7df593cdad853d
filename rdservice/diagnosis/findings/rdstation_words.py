"""The sentences of the findings about RD Station: what was seen, what it means, what to do."""

from rdservice.diagnosis.sentences import RESTART, Sentences
from rdservice.text.catalogue import message, plural_message
from rdservice.text.troubles import COMPARE_CREDENTIALS, CREDENTIALS_REFUSED, NOT_RENEWED

_BY_ITSELF = message("The service tries again automatically; no account needs to be connected again.")
_PASSES = message(
    "The service tries again automatically, and serves what it has meanwhile. See RD Station's"
    " status page if this lasts over an hour."
)
_UNEXPECTED = message(
    "RDSTATION_API_URL may lead elsewhere, a proxy may answer, or the app in the App Store changed."
)
_UNEXPECTED_TODO = message(
    "Check RDSTATION_API_URL (normally https://api.rd.services), proxies on the way, and the app"
    " in the RD Station App Store."
)
_ASKED_AGAIN = message("The service asks it again in %(wait)s.")
_NOT_AGAIN = message("Do not connect the accounts again.")
_CLOCK = message(
    "The database's clock decides when tokens are due. While it is wrong, times on the pages are"
    " wrong, and when it jumps tokens may be renewed too late."
)
_CLOCK_TODO = message("Set the clock of the computer on which PostgreSQL runs, by NTP. No restart is needed.")
_CLOCK_HERE = message(
    "The database's clock decides when tokens are due; but secure connections fail when this"
    " computer's clock is far off, and the times in logs are wrong."
)

WORDS: dict[str, Sentences] = {
    "credentials_refused": Sentences(
        [CREDENTIALS_REFUSED, _ASKED_AGAIN],
        [
            message("The settings are wrong, or the secret was replaced in the App Store."),
            NOT_RENEWED,
        ],
        [
            COMPARE_CREDENTIALS,
            RESTART,
            _NOT_AGAIN,
        ],
    ),
    "credentials_refused/swapped": Sentences(
        [
            message("RD Station refuses the client ID and the client secret, which look swapped."),
            _ASKED_AGAIN,
        ],
        [
            message("RDSTATION_CLIENT_SECRET looks like a client ID, and RDSTATION_CLIENT_ID does not."),
            NOT_RENEWED,
        ],
        [
            message("Put each into its own variable, as the RD Station App Store shows them."),
            RESTART,
            _NOT_AGAIN,
        ],
    ),
    "credentials_refused/id_form": Sentences(
        [CREDENTIALS_REFUSED, _ASKED_AGAIN],
        [
            message(
                "RDSTATION_CLIENT_ID does not look like an app's client ID (8-4-4-4-12 characters). RD"
                " Station's account page shows other ids and tokens, and RD Station CRM has its own: they do"
                " not work here."
            ),
            NOT_RENEWED,
        ],
        [
            message("Copy the client ID and the client secret of the app from the RD Station App Store."),
            RESTART,
            _NOT_AGAIN,
        ],
    ),
    "credentials_refused/earlier": Sentences(
        [
            plural_message(
                "RD Station refused the client credentials at the last renewal of one account.",
                "RD Station refused the client credentials at the last renewal of %(count)s accounts.",
            )
        ],
        [
            message(
                "These settings have not been refused: either they were changed since, or the worker runs"
                " with other ones."
            )
        ],
        [
            message(
                "Restart the worker, so that it has the same settings; the accounts are then renewed"
                " automatically."
            )
        ],
    ),
    "rdstation_unreachable": Sentences(
        [message("No answer from %(api_url)s to %(operation)s (%(answer)s).")],
        [message("RD Station is down, or this machine cannot reach it."), _BY_ITSELF],
        [
            message(
                "Check this machine's network, name server, firewall and proxy, RDSTATION_API_URL, and RD"
                " Station's status page."
            )
        ],
    ),
    "rdstation_unreachable/dns": Sentences(
        [message("The name of %(api_url)s could not be resolved (%(reason)s).")],
        [message("This machine's name server does not know RD Station's address."), _BY_ITSELF],
        [
            message(
                "Check this machine's name server (DNS) and network, and the spelling of RDSTATION_API_URL."
            )
        ],
    ),
    "rdstation_unreachable/tcp": Sentences(
        [message("No connection to %(api_url)s could be made (%(reason)s).")],
        [
            message(
                "The name is known, but nothing takes connections there: a firewall on the way, or RD Station"
                " is down."
            ),
            _BY_ITSELF,
        ],
        [
            message(
                "Check this machine's firewall, and whether it needs a proxy (HTTPS_PROXY). From another"
                " network: does RD Station work, and what does its status page say?"
            )
        ],
    ),
    "rdstation_unreachable/tls": Sentences(
        [message("A connection to %(api_url)s was made, but not a secure one (TLS) (%(reason)s).")],
        [
            message(
                "Something on the way inspects the traffic, this machine's clock is wrong, or RD Station is"
                " in trouble."
            ),
            _BY_ITSELF,
        ],
        [
            message(
                "Check this machine's clock, and any proxy that inspects TLS: its certificate belongs in a"
                " file that REQUESTS_CA_BUNDLE names. Tokens are not sent without TLS."
            )
        ],
    ),
    "rdstation_unreachable/silent": Sentences(
        [message("%(api_url)s takes connections but gives no answer to %(operation)s (%(answer)s).")],
        [message("The way to RD Station is open; it is RD Station that does not answer."), _BY_ITSELF],
        [_PASSES],
    ),
    "rdstation_unreachable/earlier": Sentences(
        [
            plural_message(
                "The last renewal of one account failed: %(api_url)s did not answer.",
                "The last renewal of %(count)s accounts failed: %(api_url)s did not answer.",
            )
        ],
        [message("RD Station was down, or this machine could not reach it."), _BY_ITSELF],
        [
            message(
                "If this stays: check this machine's network, name server, firewall and proxy,"
                " RDSTATION_API_URL, and RD Station's status page."
            )
        ],
    ),
    "forbidden_by_gateway": Sentences(
        [
            message(
                "Something in front of RD Station forbids %(operation)s (HTTP 403, not in RD Station's own"
                " form)."
            )
        ],
        [
            message(
                "A proxy or firewall of this network, or RD Station's protection against attacks, refuses"
                " this machine. Nothing is wrong with the tokens."
            ),
            _BY_ITSELF,
        ],
        [
            message(
                "Check proxies and firewalls of this network, and RDSTATION_API_URL. If there are none, give"
                " RD Station's support this machine's public address and the time."
            )
        ],
    ),
    "rdstation_failing": Sentences(
        [message("RD Station answered %(operation)s with an internal error (%(answer)s).")],
        [message("RD Station has a problem."), _BY_ITSELF],
        [_PASSES],
    ),
    "rdstation_failing/earlier": Sentences(
        [
            plural_message(
                "The last renewal of one account failed: RD Station had an error.",
                "The last renewal of %(count)s accounts failed: RD Station had an error.",
            )
        ],
        [message("RD Station had a problem."), _BY_ITSELF],
        [_PASSES],
    ),
    "rdstation_unexpected": Sentences(
        [message("%(api_url)s answered %(operation)s as RD Station never does (%(answer)s).")],
        [_UNEXPECTED],
        [_UNEXPECTED_TODO],
    ),
    "rdstation_unexpected/earlier": Sentences(
        [
            plural_message(
                "The last renewal of one account failed: the answer was not one of RD Station's.",
                "The last renewal of %(count)s accounts failed: the answer was not one of RD Station's.",
            )
        ],
        [_UNEXPECTED],
        [_UNEXPECTED_TODO],
    ),
    "redirect_uri_not_registered": Sentences(
        [message("RD Station does not open its authorization page for %(uri)s (%(answer)s).")],
        [
            message(
                "This callback URL is not registered with the app exactly like this, or RDSTATION_CLIENT_ID"
                " is another app's. Nobody can connect an account; connected accounts are still renewed."
            )
        ],
        [
            message(
                "Compare RDSTATION_REDIRECT_URI with the app's callback URL in the RD Station App Store,"
                " letter by letter, and RDSTATION_CLIENT_ID too. After a change there RD Station may take an"
                " hour."
            ),
            RESTART,
        ],
    ),
    "clock_skew": Sentences(
        [message("The database's clock is %(skew)s ahead of RD Station's.")],
        [_CLOCK],
        [_CLOCK_TODO],
    ),
    "clock_skew/behind": Sentences(
        [message("The database's clock is %(skew)s behind RD Station's.")],
        [_CLOCK],
        [_CLOCK_TODO],
    ),
    "clock_skew/machine": Sentences(
        [message("This computer's clock is %(skew)s ahead of RD Station's; the database's is right.")],
        [_CLOCK_HERE],
        [message("Set this computer's clock, by NTP.")],
    ),
    "clock_skew/machine_behind": Sentences(
        [message("This computer's clock is %(skew)s behind RD Station's; the database's is right.")],
        [_CLOCK_HERE],
        [message("Set this computer's clock, by NTP.")],
    ),
    "unauthorized_api": Sentences(
        [
            message(
                "RD Station refuses leads (HTTP 401) although the access token of account %(account)s is new."
            )
        ],
        [
            message(
                "The tokens are renewed, but do not give access to RD Station Marketing: the app or the"
                " account lacks it."
            )
        ],
        [
            message(
                "Check the app's permissions in the RD Station App Store and that the account has RD Station"
                " Marketing; then connect it again: %(login)s."
            )
        ],
    ),
    "unauthorized_api/same_token": Sentences(
        [
            message(
                "RD Station refuses leads (HTTP 401) with the access token of account %(account)s, which"
                " could not be renewed."
            )
        ],
        [message("The access token is no longer valid: it was revoked, or replaced elsewhere.")],
        [
            message(
                'Try "Refresh now" on the status page in a few minutes; if it stays, connect the account'
                " again: %(login)s."
            )
        ],
    ),
    "plan_without_api": Sentences(
        [
            message(
                "RD Station forbids leads for account %(account)s (HTTP 403), although its access token"
                " covers them."
            )
        ],
        [
            message(
                "The connection is right. Most likely the plan of the RD Station account does not include the"
                " API, or it was suspended."
            )
        ],
        [
            message(
                "Ask RD Station's support, or the person who manages the contract, whether the account's plan"
                " includes API access. No need to connect again."
            )
        ],
    ),
    "forbidden_api": Sentences(
        [message("RD Station forbids leads for account %(account)s (HTTP 403).")],
        [
            message(
                "The token works, but may not read leads: the authorization, the app or the plan of the"
                " account does not include it."
            )
        ],
        [
            message(
                "Check the app's permissions (%(scope)s) in the RD Station App Store and the account's plan,"
                " then connect the account again: %(login)s."
            )
        ],
    ),
    "rate_limited": Sentences(
        [message("RD Station limited the requests for a while: %(operation)s was answered with %(answer)s.")],
        [
            message(
                "The limit of requests a minute is used up, by this service or by other programs on the same"
                " account."
            )
        ],
        [
            message(
                "You don't need to do anything if it passes within a minute. If it comes back: lower"
                " RDSTATION_RATE_LIMIT, or find out what else calls RD Station."
            )
        ],
    ),
    "rate_limited/budget": Sentences(
        [
            message(
                "The calls that RDSTATION_RATE_LIMIT allows for a minute are spent, so leads were not tried."
            )
        ],
        [message("The service calls RD Station as often as it may; leads come from the cache meanwhile.")],
        [
            message(
                "You don't need to do anything if it passes within a minute. If it comes back: call less"
                " often, or raise RDSTATION_RATE_LIMIT if the account's plan allows more."
            )
        ],
    ),
    "rate_limited/earlier": Sentences(
        [
            plural_message(
                "RD Station limited the requests for a while, so one account was not renewed.",
                "RD Station limited the requests for a while, so %(count)s accounts were not renewed.",
            )
        ],
        [message("The service tries again automatically, as soon as RD Station allows it.")],
        [message("You don't need to do anything.")],
    ),
}

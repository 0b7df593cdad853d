"""The findings' sentences in English: for each, what was seen, what it means, what to do."""

from typing import NamedTuple


class Words(NamedTuple):
    """The sentences of a finding, with places for its values in braces."""

    seen: str
    meaning: str
    todo: str


_RESTART = "Then restart web and worker."
_BY_ITSELF = "The service tries again by itself; no account needs to be connected again."
_PASSES = (
    "The service tries again by itself, and serves what it has meanwhile. Look at RD Station's status page if this"
    " lasts over an hour."
)
_RECONNECT = 'Connect the account again: "Connect again" on the status page, or {login}.'
_WHERE = "where the service gets its settings (the environment, or the file .env)"
_CALLBACK = (
    "Set RDSTATION_REDIRECT_URI to the callback URL of this service exactly as it is registered with the app in the RD"
    " Station App Store, for example {example}. " + _RESTART
)
_NO_START = "Web and worker do not start with these settings (exit status 78)."
_WORKER_TODO = (
    "Start it with 'python -m worker' (on Heroku: 'heroku ps:scale worker=1'); see its log if it ends again."
)
_UNEXPECTED = "RDSTATION_API_URL may lead elsewhere, a proxy may answer, or the app in the App Store changed."
_UNEXPECTED_TODO = (
    "Check RDSTATION_API_URL (normally https://api.rd.services), proxies on the way, and the app in the RD Station App"
    " Store."
)

_NOT_AGAIN = " Do not connect the accounts again."
_CLOCK = (
    "The database's clock decides when tokens are due. While it is wrong, times on the pages are wrong, and when it"
    " jumps"
    " tokens may be renewed too late."
)
_CLOCK_TODO = "Set the clock of the computer on which PostgreSQL runs, by NTP. Nothing has to be restarted."
_CLOCK_HERE = (
    "When tokens are due is the database's matter; but secure connections fail when a clock is far off, and the times"
    " in"
    " logs are wrong."
)

WORDS: dict[str, Words] = {
    "settings_broken": Words(
        "{what}",
        _NO_START,
        "Correct {variable} " + _WHERE + ". Example: {variable}={example}. " + _RESTART,
    ),
    "settings_broken/file": Words(
        "{what}",
        "Web and worker do not start while a settings file cannot be read (exit status 78).",
        "Mend the file's permissions or encoding, or remove it. " + _RESTART,
    ),
    "settings_broken/encoding": Words(
        "{what}",
        _NO_START,
        "Write the value of {variable} anew " + _WHERE + ". " + _RESTART,
    ),
    "redirect_uri_holds_secret": Words(
        "{what}",
        "A secret stands where the callback URL belongs. " + _NO_START,
        _CALLBACK + " If others may have seen the secret there, make a new one in the App Store.",
    ),
    "client_secret_holds_url": Words(
        "{what}",
        "A URL stands where the client secret belongs, probably swapped with RDSTATION_REDIRECT_URI. "
        + _NO_START,
        "Copy the client secret of the app from the RD Station App Store into RDSTATION_CLIENT_SECRET. "
        + _RESTART,
    ),
    "redirect_uri_local_host": Words(
        "{what}",
        "After their consent RD Station would send operators to their own computers. " + _NO_START,
        _CALLBACK,
    ),
    "redirect_uri_not_https": Words(
        "{what}",
        "The authorization code would travel unprotected. " + _NO_START,
        _CALLBACK,
    ),
    "redirect_uri_wrong_path": Words(
        "{what}",
        "RD Station would send operators to an address that this service does not have. " + _NO_START,
        _CALLBACK,
    ),
    "database_unreachable": Words(
        "PostgreSQL could not be reached: {error}",
        "Tokens and leads are in the database: without it nothing is served and nothing is renewed.",
        "Check that the server runs, and that DATABASE_URL has the right host, port, database, user and password.",
    ),
    "database_unreachable/failing": Words(
        "PostgreSQL was reached but failed: {error}",
        "Tokens and leads are in the database: what cannot be read there is not served and not renewed.",
        "Look at PostgreSQL's log for this time; check its load, free disk space and the rights of the user in"
        " DATABASE_URL.",
    ),
    "migrations_pending": Words(
        "The database lacks these migrations: {migrations}",
        "The tables do not fit this version of the service.",
        "Run 'flask release' with the same settings, then run this diagnosis again.",
    ),
    "database_read_only": Words(
        "PostgreSQL takes no writes: it is a standby, or set to read only.",
        "Tokens cannot be renewed, since what RD Station answers could not be stored. Access tokens are served until"
        " they"
        " expire.",
        "Point DATABASE_URL to the primary server, or end the protection (often a full disk). Nothing has to be"
        " restarted.",
    ),
    "key_missing": Words(
        "The tokens of account {account} need the key {needed}; TOKEN_ENCRYPTION_KEYS has {there}.",
        "The tokens are intact, but can be neither decrypted nor renewed meanwhile. All others are.",
        "Add the missing key to TOKEN_ENCRYPTION_KEYS, after a comma (the first key encrypts). "
        + _RESTART
        + " Only if"
        " the key is lost: connect the account again.",
    ),
    "value_damaged": Words(
        "A stored token of account {account} cannot be decrypted although its key is there.",
        "The value was changed, cut off, or copied from another row or column.",
        "Restore the row from a backup, or connect the account again: {login}.",
    ),
    "value_damaged/earlier": Words(
        "The renewal of account {account} met a refresh token that it could not decrypt.",
        "The value was damaged then; it is readable now, but the account waits for a new authorization.",
        "Use 'flask accounts refresh {account}' to try the token that is there now, or connect the account again.",
    ),
    "token_not_encrypted": Words(
        "A token of account {account} is stored without encryption.",
        "It comes from an older backend or was written by hand; the service does not use it like that.",
        "Run 'flask release', which encrypts it.",
    ),
    "credentials_refused": Words(
        "RD Station refuses the client ID or the client secret; it is asked again in {wait}.",
        "The settings are wrong, or the secret was replaced in the App Store. No token can be renewed until that is"
        " mended; the stored tokens are kept, and access tokens work until they expire.",
        "Compare RDSTATION_CLIENT_ID and RDSTATION_CLIENT_SECRET with the app in the RD Station App Store. "
        + _RESTART
        + _NOT_AGAIN,
    ),
    "credentials_refused/swapped": Words(
        "RD Station refuses the client ID and the client secret, which look swapped; it is asked again in {wait}.",
        "RDSTATION_CLIENT_SECRET has the form of a client ID, and RDSTATION_CLIENT_ID has not. No token can be renewed"
        " until that is mended; the stored tokens are kept.",
        "Put each into its own variable, as the RD Station App Store shows them. " + _RESTART + _NOT_AGAIN,
    ),
    "credentials_refused/id_form": Words(
        "RD Station refuses the client ID or the client secret; it is asked again in {wait}.",
        "RDSTATION_CLIENT_ID has not the form of an app's client ID (8-4-4-4-12 characters). RD Station's account page"
        " shows other ids and tokens, and RD Station CRM has its own: they do not work here. The stored tokens are"
        " kept.",
        "Copy the client ID and the client secret of the app from the RD Station App Store. "
        + _RESTART
        + _NOT_AGAIN,
    ),
    "credentials_refused/earlier": Words(
        "RD Station refused the client credentials at the last renewal of {count} account(s).",
        "These settings have not been refused: either they were changed since, or the worker runs with other ones.",
        "Restart the worker, so that it has the same settings; the accounts are then renewed by themselves.",
    ),
    "rdstation_unreachable": Words(
        "No answer from {api_url} to {operation} ({answer}).",
        "RD Station is down, or this machine cannot reach it. " + _BY_ITSELF,
        "Check this machine's network, name server, firewall and proxy, RDSTATION_API_URL, and RD Station's status"
        " page.",
    ),
    "rdstation_unreachable/dns": Words(
        "The name of {api_url} could not be resolved ({reason}).",
        "This machine's name server does not know RD Station's address. " + _BY_ITSELF,
        "Check this machine's name server (DNS) and network, and the spelling of RDSTATION_API_URL.",
    ),
    "rdstation_unreachable/tcp": Words(
        "No connection to {api_url} could be made ({reason}).",
        "The name is known, but nothing takes connections there: a firewall on the way, or RD Station is down. "
        + _BY_ITSELF,
        "Check this machine's firewall, and whether it needs a proxy (HTTPS_PROXY). From another network: does RD"
        " Station"
        " work, and what does its status page say?",
    ),
    "rdstation_unreachable/tls": Words(
        "A connection to {api_url} stood, but no secure one (TLS) could be made ({reason}).",
        "Something on the way inspects the traffic, this machine's clock is wrong, or RD Station is in trouble. "
        + _BY_ITSELF,
        "Check this machine's clock, and any proxy that inspects TLS: its certificate belongs in a file that"
        " REQUESTS_CA_BUNDLE names. Tokens are not sent without TLS.",
    ),
    "rdstation_unreachable/silent": Words(
        "{api_url} takes connections but gives no answer to {operation} ({answer}).",
        "The way to RD Station is open; it is RD Station that does not answer. " + _BY_ITSELF,
        _PASSES,
    ),
    "rdstation_unreachable/earlier": Words(
        "The last renewal of {count} account(s) got no answer from {api_url} ({kinds}).",
        "RD Station was down, or this machine could not reach it. " + _BY_ITSELF,
        "If this stays: check this machine's network, name server, firewall and proxy, RDSTATION_API_URL, and RD"
        " Station's status page.",
    ),
    "forbidden_by_gateway": Words(
        "Something in front of RD Station forbids {operation} (HTTP 403, not in RD Station's own form).",
        "A proxy or firewall of this network, or RD Station's protection against attacks, refuses this machine. Nothing"
        " is wrong with the tokens. " + _BY_ITSELF,
        "Check proxies and firewalls of this network, and RDSTATION_API_URL. If there are none, give RD Station's"
        " support"
        " this machine's public address and the time.",
    ),
    "rdstation_failing": Words(
        "RD Station answered {operation} with an error of its own ({answer}).",
        "RD Station has a problem. " + _BY_ITSELF,
        _PASSES,
    ),
    "rdstation_failing/earlier": Words(
        "The last renewal of {count} account(s) met an error of RD Station ({kinds}).",
        "RD Station had a problem. " + _BY_ITSELF,
        _PASSES,
    ),
    "rdstation_unexpected": Words(
        "{api_url} answered {operation} in a way that RD Station does not ({answer}).",
        _UNEXPECTED,
        _UNEXPECTED_TODO,
    ),
    "rdstation_unexpected/earlier": Words(
        "The last renewal of {count} account(s) was answered in a way that RD Station does not ({kinds}).",
        _UNEXPECTED,
        _UNEXPECTED_TODO,
    ),
    "redirect_uri_not_registered": Words(
        "RD Station does not open its consent dialog for {uri} ({answer}).",
        "This callback URL is not registered with the app exactly like this, or RDSTATION_CLIENT_ID is another app's."
        " Nobody can connect an account; those that are connected go on being renewed.",
        "Compare RDSTATION_REDIRECT_URI with the app's callback URL in the RD Station App Store, letter by letter, and"
        " RDSTATION_CLIENT_ID too. After a change there RD Station may take an hour. " + _RESTART,
    ),
    "worker_not_running": Words(
        "The worker is not running: its last sign of life was {silence} ago.",
        "No token is renewed; each access token stops working when it expires.",
        _WORKER_TODO,
    ),
    "worker_not_running/never": Words(
        "The worker is not running: there is no sign of life of any.",
        "No token is renewed; each access token stops working when it expires.",
        _WORKER_TODO,
    ),
    "clock_skew": Words(
        "The database's clock is {skew} ahead of RD Station's.",
        _CLOCK,
        _CLOCK_TODO,
    ),
    "clock_skew/behind": Words(
        "The database's clock is {skew} behind RD Station's.",
        _CLOCK,
        _CLOCK_TODO,
    ),
    "clock_skew/machine": Words(
        "This computer's clock is {skew} ahead of RD Station's; the database's is right.",
        _CLOCK_HERE,
        "Set this computer's clock, by NTP.",
    ),
    "clock_skew/machine_behind": Words(
        "This computer's clock is {skew} behind RD Station's; the database's is right.",
        _CLOCK_HERE,
        "Set this computer's clock, by NTP.",
    ),
    "no_account": Words(
        "No RD Station account is connected.",
        "There are no tokens, so there is nothing to renew and no lead to serve.",
        "Log in, open /rd/login and give your consent at RD Station, or upload tokens with POST /rd/tokens.",
    ),
    "no_account/unknown": Words(
        "There is no account {account}.",
        "Other accounts are connected, but none under this name.",
        "Check the name ('flask accounts list' shows all), or connect it: {login}.",
    ),
    "reauthorization_required": Words(
        "RD Station no longer accepts the refresh token of account {account}.",
        "The app was probably removed from the RD Station account, or its access was revoked there.",
        _RECONNECT,
    ),
    "reauthorization_required/answer_lost": Words(
        "The refresh token of account {account} was used up by a renewal whose answer got lost.",
        "The connection broke, or a process was killed, while RD Station answered. Nothing is wrong with the settings.",
        _RECONNECT,
    ),
    "reauthorization_required/no_refresh_token": Words(
        "There is no refresh token for account {account}.",
        "Without one its access token cannot be renewed.",
        _RECONNECT,
    ),
    "upload_refused": Words(
        "RD Station refused the refresh token that was uploaded last for account {account}.",
        "The pair that was there before is in use again.",
        "Upload a new pair if the other RD Station account was meant; otherwise nothing is to be done.",
    ),
    "refresh_refused": Words(
        "RD Station refused to renew account {account} ({error}).",
        "It is not certain yet that the refresh token is dead: this counts after three refusals over ten minutes.",
        "Wait ten minutes and look again. If you removed the app in RD Station, connect the account again:"
        " {login}.",
    ),
    "token_expired": Words(
        "The access token of account {account} expired {ago} ago.",
        "It was not renewed in time: RD Station answers nothing for this account until it is.",
        "Mend what stands above this; then it is renewed by itself, or at once by 'flask accounts refresh {account}'.",
    ),
    "audience_old": Words(
        "The access token of account {account} was made for {aud}, not for {api_url}.",
        "RD Station may refuse it: it comes from an older API or another product of RD Station.",
        _RECONNECT,
    ),
    "unauthorized_api": Words(
        "RD Station refuses leads (HTTP 401) although the access token of account {account} is new.",
        "The tokens are renewed, but do not give access to RD Station Marketing: the app or the account lacks it.",
        "Check the app's permissions in the RD Station App Store and that the account has RD Station Marketing; then"
        " connect it again: {login}.",
    ),
    "unauthorized_api/same_token": Words(
        "RD Station refuses leads (HTTP 401) with the access token of account {account}, which could not be renewed.",
        "The access token is no longer valid: it was revoked, or replaced elsewhere.",
        'Try "Refresh now" on the status page in a few minutes; if it stays, connect the account again:'
        " {login}.",
    ),
    "scope_missing": Words(
        "The access token of account {account} covers '{scope}', but '{required}' is needed.",
        "RD Station may refuse leads: the consent did not include them.",
        "Check the app's permissions in the RD Station App Store and RDSTATION_SCOPE, then connect the account again:"
        " {login}.",
    ),
    "plan_without_api": Words(
        "RD Station forbids leads for account {account} (HTTP 403), although its access token covers them.",
        "The connection is right. Most likely the plan of the RD Station account does not include the API, or it was"
        " suspended.",
        "Ask RD Station's support, or whoever manages the contract, whether the account's plan includes API access. No"
        " need to connect again.",
    ),
    "forbidden_api": Words(
        "RD Station forbids leads for account {account} (HTTP 403).",
        "The token works, but may not read leads: the consent, the app or the plan of the account does not include it.",
        "Check the app's permissions ({scope}) in the RD Station App Store and the account's plan, then connect the"
        " account again: {login}.",
    ),
    "rate_limited": Words(
        "RD Station asks for fewer requests: {operation} was answered with {answer}.",
        "The limit of requests a minute is used up, by this service or by other programs on the same account.",
        "Nothing, if it passes within a minute. If it comes back: lower RDSTATION_RATE_LIMIT, or find out what else"
        " calls RD Station.",
    ),
    "rate_limited/budget": Words(
        "The calls that RDSTATION_RATE_LIMIT allows for a minute are spent, so leads were not tried.",
        "The service calls RD Station as often as it may; leads come from the cache meanwhile.",
        "Nothing, if it passes within a minute. If it comes back: call less often, or raise RDSTATION_RATE_LIMIT if the"
        " account's plan allows more.",
    ),
    "rate_limited/earlier": Words(
        "RD Station asked for fewer requests at the last renewal of {count} account(s).",
        "The renewal waits as long as RD Station wants.",
        "Nothing: it is tried again by itself.",
    ),
    "refresh_backing_off": Words(
        "The renewal of account {account} failed {failures} time(s) ({error}); the next attempt is in {wait}.",
        "The pause protects RD Station, and binds 'refresh now' too.",
        "Nothing: it is tried again by itself.",
    ),
    "unverified": Words(
        "The uploaded tokens of account {account} have not been tried yet.",
        "RD Station could not be asked when they were uploaded.",
        "Nothing: the worker tries them within a minute.",
    ),
    "notifications_failing": Words(
        "{count} notification(s) of the last day did not arrive ({kinds}).",
        "Nobody may have been told that an account needs somebody.",
        "Look at the page Notifications, mend NOTIFY_URLS or the receiver, and send a test there.",
    ),
    "notifications_failing/unusable": Words(
        "{what}",
        "Web and worker run, but no notification goes to this receiver.",
        "Correct the entry in {variable} " + _WHERE + ". Example: {example}. " + _RESTART,
    ),
}

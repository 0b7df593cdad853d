"""The findings' sentences: for each, what was seen, what it means, what to do. Their Portuguese is in the catalogue."""

from rdservice.diagnosis.findings import rdstation_words
from rdservice.diagnosis.sentences import RESTART, Sentences
from rdservice.text.catalogue import message, plural_message
from rdservice.text.troubles import (
    ADD_MISSING_KEY,
    CONNECT_AGAIN,
    MUST_BE_AUTHORIZED,
    REFUSED_TOGETHER,
    TRIED_AGAIN,
)

# A mistake in the settings, whose own sentence is translated already.
_MISTAKE = "%(what)s"
_OR_LOG_IN = message("Or open %(login)s.")
_CALLBACK = message(
    "Set RDSTATION_REDIRECT_URI to the callback URL of this service exactly as it is registered"
    " with the app in the RD Station App Store, for example %(example)s."
)
_NO_START = message("Web and worker do not start with these settings (exit status 78).")
_WORKER_TODO = message(
    "Start it with 'python -m worker' (on Heroku: 'heroku ps:scale worker=1'); see its log if it ends again."
)

WORDS: dict[str, Sentences] = rdstation_words.WORDS | {
    "settings_broken": Sentences(
        [_MISTAKE],
        [_NO_START],
        [
            message(
                "Correct %(variable)s where the service gets its settings (the environment, or the file"
                " .env). Example: %(variable)s=%(example)s."
            ),
            RESTART,
        ],
    ),
    "settings_broken/file": Sentences(
        [_MISTAKE],
        [message("Web and worker do not start while a settings file cannot be read (exit status 78).")],
        [message("Fix the file's permissions or encoding, or remove it."), RESTART],
    ),
    "settings_broken/encoding": Sentences(
        [_MISTAKE],
        [_NO_START],
        [
            message(
                "Retype the value of %(variable)s where the service gets its settings (the environment, or"
                " the file .env)."
            ),
            RESTART,
        ],
    ),
    "redirect_uri_holds_secret": Sentences(
        [_MISTAKE],
        [message("The callback URL was replaced by a secret."), _NO_START],
        [
            _CALLBACK,
            RESTART,
            message("If others may have seen the secret there, make a new one in the App Store."),
        ],
    ),
    "client_secret_holds_url": Sentences(
        [_MISTAKE],
        [
            message("The client secret was replaced by a URL, probably swapped with RDSTATION_REDIRECT_URI."),
            _NO_START,
        ],
        [
            message(
                "Copy the client secret of the app from the RD Station App Store into"
                " RDSTATION_CLIENT_SECRET."
            ),
            RESTART,
        ],
    ),
    "redirect_uri_local_host": Sentences(
        [_MISTAKE],
        [
            message("After the authorization RD Station would send operators to their own computers."),
            _NO_START,
        ],
        [_CALLBACK, RESTART],
    ),
    "redirect_uri_not_https": Sentences(
        [_MISTAKE],
        [message("The authorization code would travel unprotected."), _NO_START],
        [_CALLBACK, RESTART],
    ),
    "redirect_uri_wrong_path": Sentences(
        [_MISTAKE],
        [
            message("RD Station would send operators to an address that this service does not have."),
            _NO_START,
        ],
        [_CALLBACK, RESTART],
    ),
    "database_unreachable": Sentences(
        [message("PostgreSQL could not be reached: %(error)s")],
        [
            message(
                "Tokens and leads are in the database: without it nothing is served and nothing is renewed."
            )
        ],
        [
            message(
                "Check that the server runs, and that DATABASE_URL has the right host, port, database, user"
                " and password."
            )
        ],
    ),
    "database_unreachable/failing": Sentences(
        [message("PostgreSQL was reached but failed: %(error)s")],
        [
            message(
                "Tokens and leads are in the database: what cannot be read there is not served and not"
                " renewed."
            )
        ],
        [
            message(
                "Look at PostgreSQL's log for this time; check its load, free disk space and the rights of"
                " the user in DATABASE_URL."
            )
        ],
    ),
    "migrations_pending": Sentences(
        [message("The database lacks these migrations: %(migrations)s")],
        [message("The tables do not fit this version of the service.")],
        [message("Run 'flask release' with the same settings, then run this diagnosis again.")],
    ),
    "database_read_only": Sentences(
        [message("PostgreSQL takes no writes: it is a standby, or set to read only.")],
        [
            message(
                "Tokens cannot be renewed, since what RD Station answers could not be stored. Access tokens"
                " are served until they expire."
            )
        ],
        [
            message(
                "Point DATABASE_URL to the primary server, or lift the protection (often set because of a"
                " full disk). No restart is needed."
            )
        ],
    ),
    "key_missing": Sentences(
        [
            message(
                "The tokens of account %(account)s need the key %(needed)s; TOKEN_ENCRYPTION_KEYS has"
                " %(there)s."
            )
        ],
        [
            message(
                "The tokens are intact, but cannot be decrypted or renewed until then. Accounts with other"
                " keys work."
            )
        ],
        [
            ADD_MISSING_KEY,
            RESTART,
            message("Only if the key is lost: connect the account again."),
        ],
    ),
    "value_damaged": Sentences(
        [message("A stored token of account %(account)s cannot be decrypted although its key is there.")],
        [message("The value was changed, cut off, or copied from another row or column.")],
        [message("Restore the row from a backup, or connect the account again: %(login)s.")],
    ),
    "value_damaged/earlier": Sentences(
        [message("The renewal of account %(account)s met a refresh token that it could not decrypt.")],
        [
            message(
                "The value was damaged then; it is readable now, but the account waits for a new"
                " authorization."
            )
        ],
        [
            message(
                "Use 'flask accounts refresh %(account)s' to try the token that is there now, or connect the"
                " account again."
            )
        ],
    ),
    "token_not_encrypted": Sentences(
        [message("A token of account %(account)s is stored without encryption.")],
        [
            message(
                "It comes from an older backend or was written by hand; the service does not use it like"
                " that."
            )
        ],
        [message("Run 'flask release', which encrypts it.")],
    ),
    "worker_not_running": Sentences(
        [message("The worker is not running: its last sign of life was %(silence)s ago.")],
        [message("No token is renewed; each access token stops working when it expires.")],
        [_WORKER_TODO],
    ),
    "worker_not_running/never": Sentences(
        [message("The worker is not running: it has never given a sign of life.")],
        [message("No token is renewed; each access token stops working when it expires.")],
        [_WORKER_TODO],
    ),
    "no_account": Sentences(
        [message("No RD Station account is connected.")],
        [message("There are no tokens, so there is nothing to renew and no lead to serve.")],
        [
            message(
                "Log in, open /rd/login and authorize the app in RD Station, or upload tokens with POST"
                " /rd/tokens."
            )
        ],
    ),
    "no_account/unknown": Sentences(
        [message("There is no account %(account)s.")],
        [message("Other accounts are connected, but none under this name.")],
        [message("Check the name ('flask accounts list' shows all), or connect it: %(login)s.")],
    ),
    "refused_together": Sentences(
        [REFUSED_TOGETHER],
        [
            message("It is unlikely that so many customers removed the app at the same time."),
            message("Access tokens work until they expire."),
        ],
        [TRIED_AGAIN, message("Tell RD Station's support about it.")],
    ),
    "reauthorization_required": Sentences(
        [
            MUST_BE_AUTHORIZED,
        ],
        [
            message("RD Station no longer accepts its refresh token."),
            message(
                "The app was probably removed from the RD Station account, or its access was revoked there."
            ),
            message(
                "In case RD Station is wrong, the service tries again automatically until a day after the access token"
                " has expired."
            ),
        ],
        [CONNECT_AGAIN, _OR_LOG_IN],
    ),
    "reauthorization_required/answer_lost": Sentences(
        [
            MUST_BE_AUTHORIZED,
        ],
        [
            message(
                "The answer to its last renewal got lost: the connection broke, or a process was killed, while RD"
                " Station answered. The refresh token was used up by that. Nothing is wrong with the settings."
            )
        ],
        [CONNECT_AGAIN, _OR_LOG_IN],
    ),
    "reauthorization_required/no_refresh_token": Sentences(
        [MUST_BE_AUTHORIZED],
        [message("It has no refresh token, without which its access token cannot be renewed.")],
        [CONNECT_AGAIN, _OR_LOG_IN],
    ),
    "reauthorization_required/another_account": Sentences(
        [MUST_BE_AUTHORIZED],
        [
            message(
                "The tokens that were stored last belong to another RD Station account than the one that is connected"
                " under this name, so they are not used."
            )
        ],
        [CONNECT_AGAIN, _OR_LOG_IN],
    ),
    "another_account": Sentences(
        [
            message(
                "The tokens that were uploaded last for account %(account)s belong to another RD Station account."
            )
        ],
        [message("They are not used. The pair that was there before is in use again.")],
        [
            message(
                "Upload them under another name. If the other RD Station account is to take the place of this one,"
                ' upload them with "replace_account": true.'
            )
        ],
    ),
    "upload_refused": Sentences(
        [message("RD Station refused the refresh token that was uploaded last for account %(account)s.")],
        [message("The pair that was there before is in use again.")],
        [
            message(
                "Upload a new pair if the other RD Station account was meant; otherwise you don't need to do"
                " anything."
            )
        ],
    ),
    "refresh_refused": Sentences(
        [message("RD Station refused to renew account %(account)s.")],
        [
            message(
                "The refresh token may still be valid: only three refusals over ten minutes count. Until then the"
                " service tries again automatically."
            )
        ],
        [
            message(
                "Wait ten minutes and look again. If you removed the app in RD Station, connect the account"
                " again: %(login)s."
            )
        ],
    ),
    "token_expired": Sentences(
        [message("The access token of account %(account)s expired %(ago)s ago.")],
        [message("It was not renewed in time: RD Station answers nothing for this account until it is.")],
        [
            message(
                "Fix the problem listed above; then it is renewed automatically, or at once by 'flask"
                " accounts refresh %(account)s'."
            )
        ],
    ),
    "audience_old": Sentences(
        [message("The access token of account %(account)s was made for %(aud)s, not for %(api_url)s.")],
        [message("RD Station may refuse it: it comes from an older API or another product of RD Station.")],
        [CONNECT_AGAIN, _OR_LOG_IN],
    ),
    "scope_missing": Sentences(
        [
            message(
                "The access token of account %(account)s covers '%(scope)s', but '%(required)s' is needed."
            )
        ],
        [message("RD Station may refuse leads: the authorization did not include them.")],
        [
            message(
                "Check the app's permissions in the RD Station App Store and RDSTATION_SCOPE, then connect"
                " the account again: %(login)s."
            )
        ],
    ),
    "refresh_backing_off": Sentences(
        [
            plural_message(
                "The renewal of account %(account)s failed; the next attempt is in %(wait)s.",
                "The renewal of account %(account)s failed %(count)s times in a row; the next attempt is in"
                " %(wait)s.",
            )
        ],
        [
            message(
                "The service tries again automatically. The pause protects RD Station, and applies to"
                " “Refresh now” too."
            )
        ],
        [message("You don't need to do anything.")],
    ),
    "unverified": Sentences(
        [message("The uploaded tokens of account %(account)s have not been tried yet.")],
        [message("RD Station could not be asked when they were uploaded.")],
        [message("You don't need to do anything: the worker tries them within a minute.")],
    ),
    "notifications_failing": Sentences(
        [
            plural_message(
                "One notification of the last day did not arrive.",
                "%(count)s notifications of the last day did not arrive.",
            )
        ],
        [message("Perhaps nobody knows that an account needs attention.")],
        [message("Look at the page Notifications, fix NOTIFY_URLS or the receiver, and send a test there.")],
    ),
    "notifications_failing/unusable": Sentences(
        [_MISTAKE],
        [message("Web and worker run, but no notification goes to this receiver.")],
        [
            message(
                "Correct %(variable)s where the service gets its settings (the environment, or the file"
                " .env). Example: %(variable)s=%(example)s."
            ),
            RESTART,
        ],
    ),
}

"""What findings, notifications and pages say of the same trouble, so that people read the same words in each."""

from rdservice.text.catalogue import message

MUST_BE_AUTHORIZED = message("%(account)s must be authorized again.")
CONNECT_AGAIN = message("Connect the account again: “Connect again” on its page.")
REFUSED_TOGETHER = message(
    "RD Station refused %(count)s accounts within minutes and renewed none: the fault is probably RD Station's."
)
TRIED_AGAIN = message(
    "The service tries them again automatically. Connect an account again only if it is still refused after some hours."
)
CREDENTIALS_REFUSED = message("RD Station refuses the client ID or the client secret.")
NOT_RENEWED = message(
    "No token can be renewed until that is fixed; the stored tokens are kept, and access tokens work until they expire."
)
ADD_MISSING_KEY = message(
    "Add the missing key to TOKEN_ENCRYPTION_KEYS, after a comma (the first key encrypts)."
)
COMPARE_CREDENTIALS = message(
    "Compare RDSTATION_CLIENT_ID and RDSTATION_CLIENT_SECRET with the app in the RD Station App Store."
)

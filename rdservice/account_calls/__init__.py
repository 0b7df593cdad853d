"""The one way to call RD Station for an account.

`calls` gets a valid access token and a slot in the rate budget, sends the request, and refreshes the token once after a
401. `failures` maps unusable and missing responses to the errors that callers see.
"""

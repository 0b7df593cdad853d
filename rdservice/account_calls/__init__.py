"""The one way to call RD Station for an account.

`calls` takes a live access token and a place in the rate budget, sends the request, and refreshes the token once after
a 401. `failures` says what callers are told of a response that they cannot use, and of none.
"""

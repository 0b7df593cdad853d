"""The pass-through: a program's request to any route of RD Station, sent with the stored access token.

`target` checks where a request may go, `headers` decides which headers travel in either direction, and `relay` makes
the call. Requests and responses are not stored.
"""

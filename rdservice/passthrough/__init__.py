"""Any route of RD Station for programs: their request with our access token, RD Station's answer as it is.

`target` says where a request may go, `headers` which headers travel in either direction, `relay` makes the call.
Nothing of it is stored.
"""

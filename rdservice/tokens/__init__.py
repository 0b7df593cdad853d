"""The tables of tokens and of their refreshes. Only this package writes to them.

`store` reads and replaces rows, `leases` leases rows for a refresh and stores its response, `attempts` records the
refreshes, `credentials` knows whether RD Station accepts the client secret, `workers` keeps the heartbeats, and
`adoption` encrypts rows that an older backend left behind.
"""

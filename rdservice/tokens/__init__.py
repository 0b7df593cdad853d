"""The tables of tokens and of their refreshes, and all SQL on them.

`store` reads and replaces rows, `claims` leases rows for a refresh and stores its answer, `attempts` reads the record
of refreshes, `credentials` knows whether RD Station accepts the client secret, `workers` keeps the heartbeats and
`adoption` encrypts rows that an older backend left.
"""

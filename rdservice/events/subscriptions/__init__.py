"""RD Station's subscriptions to lead events, which it delivers to an address of this service with a secret in it.

`store` is the only owner of the table, `remote` speaks with RD Station, `manage` makes and removes them.
"""

"""Subscriptions to lead events at RD Station, which delivers them to an address of this service that holds a secret.

`store` is the only owner of the table, `remote` calls RD Station, and `manage` creates and deletes subscriptions.
"""

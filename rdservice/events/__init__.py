"""Lead events that RD Station delivers by webhook.

`payloads` parses deliveries, `intake` stores them, `store` and `encrypted` are the only owners of the tables of events,
`reading` returns events in order, and `search` finds a person in them.
"""

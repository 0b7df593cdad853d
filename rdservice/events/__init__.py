"""Lead events that RD Station delivers by webhook.

`payloads` reads what is delivered, `intake` takes it, `store` is the only owner of the tables, `reading` gives events
out in order, `search` finds a person in them.
"""

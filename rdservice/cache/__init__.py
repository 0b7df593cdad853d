"""A cache of RD Station's responses with two levels: the process's memory, and a table that all processes share.

`cache` looks in `memory`, then in `table`, the only owner of `rdstation_cache`, and then calls RD Station. `entries`
has the types that they exchange.
"""

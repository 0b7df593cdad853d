"""Answers of RD Station, kept at three levels: this process's memory, a table that all processes share, RD Station.

`cache` goes through the levels, `memory` is the first, `table` the second and the only owner of `rdstation_cache`;
`answers` is what they hand to each other.
"""

"""The diagnosis: what is wrong with the connection to RD Station, why, and what to do about it.

`known_settings` and `database_facts` collect facts, `probes` tries RD Station, `findings` draws the conclusions in
words (`words_en`, `words_pt`), and `report` puts all of it into what `scripts/debug_rdstation_integration.py` writes.
The status page shows the same findings from the database's facts alone.
"""

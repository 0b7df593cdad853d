"""The diagnosis: what is wrong with the connection to RD Station, why, and what to do about it.

`facts` examines settings, database, network and RD Station; `findings` draws conclusions; `report` puts both into the
file that `scripts/debug_rdstation_integration.py` writes. The status page shows the findings that need only the
database.
"""

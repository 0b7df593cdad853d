"""Collects facts about settings, database, network and RD Station."""

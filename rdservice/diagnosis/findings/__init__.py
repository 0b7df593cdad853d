"""Derives findings from facts, with their sentences and their order."""

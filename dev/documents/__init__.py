"""Generates parts of `docs/` from the code, in both languages."""

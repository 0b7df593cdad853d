"""Checks of the repository, and the programs that rewrite what they check."""

"""Tells: the report for terminals, files and pages."""

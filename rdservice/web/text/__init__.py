"""Texts, times and numbers of pages, in the reader's language and time zone."""

"""Words and dates of pages, in the reader's language."""

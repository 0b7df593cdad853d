"""Leads and segmentations of an account, read through the cache, and exports of leads, which bypass it."""

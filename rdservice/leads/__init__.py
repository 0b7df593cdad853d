"""Leads and segmentations of an account, through the cache."""

"""Exports all leads of a segmentation, with background calls in the account's rate budget."""

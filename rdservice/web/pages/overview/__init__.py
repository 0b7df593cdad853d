"""The overview and the page of a single account."""

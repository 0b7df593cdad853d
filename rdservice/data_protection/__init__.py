"""Retention, erasure of a person's data, and inventory and rotation of encryption keys."""

"""Concludes: findings from facts, their words, and the verdict."""

"""What `scripts/check` compares and `scripts/fix` rewrites."""

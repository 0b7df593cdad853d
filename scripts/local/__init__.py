"""What scripts/start and scripts/test need to set this machine up."""

"""What all routes share: guard, problems, bodies, headers, sessions, paths."""

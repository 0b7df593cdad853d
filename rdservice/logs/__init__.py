"""What log lines look like, and which texts they never hold."""

"""What people read: English sentences in the code, and their Portuguese from gettext's catalogue."""

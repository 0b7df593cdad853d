"""How long data is kept, erasing a person, and which keys the stored values need."""

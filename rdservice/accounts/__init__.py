"""What is done to an account as a whole: how it may be named (`ids`), and its removal (`disconnect`)."""

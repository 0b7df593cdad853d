"""Operations on a whole account: connect, upload tokens, disconnect, and the rules for account ids."""

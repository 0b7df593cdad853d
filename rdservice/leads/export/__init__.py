"""All leads of a segmentation, in the background of the account's rate budget."""

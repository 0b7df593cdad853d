"""The table `rdstation_tokens` that an older backend left: it is adopted before the first migration completes it.

`checks` refuses what cannot be understood; `adopt` changes the table. Neither loses a row.
"""

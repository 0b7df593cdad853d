"""What scripts/bench measures: ratios within one run, because one machine's figures say little about another's."""

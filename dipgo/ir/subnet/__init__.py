"""SubNets: gates for each row and block, and the rules for what rows that are off yield."""

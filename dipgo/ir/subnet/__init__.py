"""SubNets: gates for each row and block, and what rows that are off yield."""

"""Search: what makes a SubNet, from the cost of its gates to their choice."""

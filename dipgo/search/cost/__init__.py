"""Prices gates, and chooses those that fit a budget."""

import sys

from dipgo.common.moved import forward

# Until dipgo 0.1 a module of this name held these definitions.
forward(sys.modules[__name__], "dipgo.search.cost.model")

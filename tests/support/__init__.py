"""What tests share: models, graphs, plans and SubNets to draw from, stand-ins, comparisons."""

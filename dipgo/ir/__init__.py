"""The data that the stages hand on: graphs, SubNets, plans, manifests. No torch."""

"""Model families: the little that tracing cannot read off the graph, one module a family."""

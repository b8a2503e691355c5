"""Statistics of a step: norms, ranks, shares, similarities."""

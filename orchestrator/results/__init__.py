"""What a store says: lines, curves, gaps and evidence, as numbers with intervals."""

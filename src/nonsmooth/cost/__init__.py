"""The cost of differentiation: counted from shapes, bounded by a proof, measured."""

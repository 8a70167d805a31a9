"""The audit: one point, one report."""

"""Conventions across frameworks: one table of formulas, run in each of them."""

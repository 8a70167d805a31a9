"""Closed-form tables of cases."""

"""Naive transcriptions, compared with the optimised code on random cases."""

"""Callbacks: the monitor of a training run, in loops that belong to a framework."""

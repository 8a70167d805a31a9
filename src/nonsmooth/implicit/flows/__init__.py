"""Flows of ordinary differential equations whose right-hand sides are not differentiable: pieces, crossings, reports."""

"""What a framework must offer, and the frameworks themselves. Importing this imports none of them."""

from nonsmooth.frameworks.framework import Evaluation, Framework, NonsmoothCall, find_framework

__all__ = ["Evaluation", "Framework", "NonsmoothCall", "find_framework"]

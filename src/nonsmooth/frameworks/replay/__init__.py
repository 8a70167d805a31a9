"""The replay of programs: what the frameworks share of evaluating a program under a selection, in array terms.

No framework is imported here. Functions take the namespace `xp` of the arrays that they are handed; classes have hooks
for what a framework does in its own way.
"""

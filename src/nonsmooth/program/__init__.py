"""Programs: what a function does at a point, as a sequence of elementary operations."""

from nonsmooth.program.program import Finding, Guard, Mode, Program, Proof, Ref, Source, Step, Value, references

__all__ = ["Finding", "Guard", "Mode", "Program", "Proof", "Ref", "Source", "Step", "Value", "references"]

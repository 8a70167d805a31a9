"""The command; every subcommand is ten lines over the API."""

from nonsmooth.cli.commands import app, main

__all__ = ["app", "main"]

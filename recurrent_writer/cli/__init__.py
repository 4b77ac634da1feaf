"""The command line: prose and data to stdout, everything else to stderr."""

from recurrent_writer.cli.app import main

__all__ = ["main"]

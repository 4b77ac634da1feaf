"""What ember can do, measured: each module gives rows of a table."""

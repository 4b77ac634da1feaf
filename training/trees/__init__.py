"""Task trees: problems that are solved step by step with tools, and the views of them that a pruning runtime leaves."""

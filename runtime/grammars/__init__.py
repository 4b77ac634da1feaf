"""Structured output: what a text may be, and the tokens that may follow at any moment, by llguidance."""

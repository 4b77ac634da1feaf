"""The story world: exact state, written prose, and a teacher who makes RecurrentGPT steps of both."""

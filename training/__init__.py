"""How the bundled model, ember, is made: the story world that teaches it, the data, the training, the evaluation."""

"""How models run: as modules of transformers over our slots, through a lean forward of our own, or by recurrent states."""

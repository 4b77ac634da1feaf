"""recurrent-writer from a checkout: `python app.py write --premise "..."`."""

from recurrent_writer.cli import main

if __name__ == "__main__":
    main()

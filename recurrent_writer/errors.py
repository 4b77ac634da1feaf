"""What can go wrong with a story; every message says what to do about it."""

from __future__ import annotations


class WriterError(Exception):
    """Base of every error that the writer raises for something its user can mend."""


class StoryNotFound(WriterError):
    """There is no story of that name in the library."""


class StoryExists(WriterError):
    """A new story was to take the name of another."""


class StoryDamaged(WriterError):
    """A story's log has a line that is not as it was written."""


class StoryLocked(WriterError):
    """Another process is writing the story."""


class InvalidStory(WriterError):
    """A premise, name or style that no story can be made of."""


class NothingWritten(WriterError):
    """The model gave no paragraph, several times over."""


class TextTooLong(WriterError):
    """A premise or a plan takes more of the model's context than its share."""


class ModelTooSmall(WriterError):
    """The model knows too few positions for the prompts of a story."""


class InvalidQuestion(WriterError):
    """A question or its tools cannot be used, or no answer came."""

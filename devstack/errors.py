"""What `make run` says when it cannot start: a sentence for the person in front of it."""


class StartError(Exception):
    """The system cannot start, or cannot go on."""

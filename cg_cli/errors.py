"""What can go wrong, as one-line messages with an exit code (design, section 4)."""

from __future__ import annotations

SOME_FAILED = 3  # exit code of a run that finished, while some of its items failed


class CgError(Exception):
    """An error a user can act on: the message says what is wrong with which input, and the next step."""

    exit_code = 1


class UsageError(CgError):
    """The request itself cannot be carried out (exit code 2)."""

    exit_code = 2


class ItemError(CgError):
    """One item failed, at one stage; other items go on (exit code 3).

    Args:
        stage: ``media``, ``encode``, ``prune``, ``prefill`` or ``decode``.
        message: one line.
        kind: a stable name for the record's ``error.type``, e.g. ``not_found``.
    """

    exit_code = SOME_FAILED

    def __init__(self, stage: str, message: str, kind: str = "error"):
        super().__init__(message)
        self.stage = stage
        self.kind = kind


class NothingToDo(CgError):
    """There was no question, or no input (exit code 4)."""

    exit_code = 4


class Interrupted(CgError):
    """Somebody asked for the end; what was done is safe (exit code 130)."""

    exit_code = 130

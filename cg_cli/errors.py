"""What can go wrong, as one-line messages with an exit code (docs/reference/errors.md)."""

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


class NotCertified(CgError):
    """What was to be certified does not follow from what was measured (exit code 5)."""

    exit_code = 5


class Interrupted(CgError):
    """Somebody asked for the end; what was done is safe (exit code 130)."""

    exit_code = 130


# The ``error.type`` of a record that was not answered: what it means, and what to do. Pruners of others may add theirs.
ERROR_TYPES = {
    "not_found": "There is no such file: check the name. Only local files are read.",
    "is_directory": "It is a folder: `cg batch` reads folders.",
    "not_a_file": "It is a pipe, a socket or a device: copy it to a file first.",
    "no_access": "The file cannot be opened, e.g. for want of permission; the message has the system's reason.",
    "empty": "The file has no bytes, or nothing that could be read in it: copy or download it again.",
    "not_media": "The file is neither video nor sound.",
    "encrypted": "The file is copy-protected: give a copy that was decrypted with its key.",
    "no_streams": "The file has neither video nor sound that can be decoded.",
    "no_track": "The file has no sound track of the number that `--audio-track` names.",
    "no_sound": "A clip without sound, in a training that needs it: it is left out.",
    "unreadable": "The file is damaged, cut off, or in a form that cannot be decoded: copy it again, or re-encode it.",
    "too_large": "Decoding it would take more memory than may be used: scale it down, or shorten it.",
    "timeout": "Decoding took longer than `--decode-timeout`: allow more time, or re-encode the file.",
    "crashed": "The decoder's process died of the file: re-encode it. In a batch it is tried twice.",
    "no_decoder": "The decoder's process did not start; the message says how to see why.",
    "changed": "The file changed while it was read: ask again when it is whole.",
    "out_of_memory": "The device's memory does not hold the clip, also with half of the budget.",
    "question_too_long": "The question has more tokens than the model could read after the clip; others go on.",
    "empty_answer": "The model ended its turn without a word: ask in other words.",
    "not_finite": "The model's output is not a number: try `--dtype float32` or `bfloat16`.",
    "poison": (
        "The file, or one question on it, killed its worker twice, e.g. by a crash of a driver or the system's "
        "out-of-memory killer. It is not tried again unless told (`--retry`)."
    ),
    "budget": "The pruner kept another number of tokens than it was told: a fault of the pruner.",
    "pruner": "The pruner cannot work with this model or command.",
    "internal": "A fault of the program or of a pruner, with its name: `CG_DEBUG=1` shows the traceback.",
}

"""Diagnostics go to ``logging``, under the names of this package's modules; ``CG_DEBUG=1`` shows them, tracebacks
too."""

from __future__ import annotations

import logging
import os
import sys

from cg_cli.util.text import printable


def show_debug_log() -> None:
    """With ``CG_DEBUG=1``, write this package's log to stderr, once; otherwise do nothing. Changes nothing else."""
    logger = logging.getLogger("cg_cli")
    if os.environ.get("CG_DEBUG") != "1" or logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(asctime)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


class _Printable(logging.Formatter):
    """Tracebacks hold texts of others."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)

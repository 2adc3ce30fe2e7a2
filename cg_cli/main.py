"""The ``cg`` command. Imports nothing heavy, so that ``cg --help`` answers at once."""

from __future__ import annotations

import atexit
import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cg_cli import __version__
from cg_cli.commands.ask import ask
from cg_cli.commands.batch import batch
from cg_cli.commands.calibrate import calibrate
from cg_cli.commands.config import config
from cg_cli.commands.doctor import doctor
from cg_cli.commands.fetch_predictor import fetch_predictor
from cg_cli.commands.help import ENVIRONMENT, Command, Group, help_of
from cg_cli.commands.profile import profile
from cg_cli.commands.samples import samples
from cg_cli.commands.train_predictor import train_predictor
from cg_cli.errors import CgError
from cg_cli.util.logs import show_debug_log
from cg_cli.util.text import one_line, printable

INTERRUPTED = 130  # exit code
log = logging.getLogger(__name__)
# How long an idle thread of torch spins on a CPU before it sleeps. By default it spins for so long that two programs on
# the same cores bring each other down to a tenth; this costs 8 % where there is only one (measured with nano on 2
# cores).
SPINS = "5000"
FIRST_STEPS = """\
cg asks your videos, without paying for every token.

Try it now, without a GPU and without a download:

  cg samples samples
  cg ask samples/drum.mp4 "what is happening?" --model nano

With a video of yours and a GPU (the weights come on first use):

  cg ask clip.mp4 "what is happening?"
  cg batch videos/ -q "what is happening?" -o answers.jsonl

cg --help lists the commands, cg COMMAND --help their options;
cg doctor says what this machine has."""
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EBADF, errno.EIO)

app = typer.Typer(
    name="cg",
    cls=Group,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "ask": ask,
    "batch": batch,
    "profile": profile,
    "calibrate": calibrate,
    "fetch-predictor": fetch_predictor,
    "train-predictor": train_predictor,
    "samples": samples,
    "config": config,
    "doctor": doctor,
}
for name, command in COMMANDS.items():
    epilog = ENVIRONMENT if command in (ask, batch, profile, calibrate, train_predictor) else None
    app.command(name, cls=Command, help=help_of(command), epilog=epilog)(command)


def _version(value: bool) -> None:
    if value:
        print(f"cg {__version__}")
        raise typer.Exit


@app.callback()
def cg(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Ask questions of your videos with an Omni-LLM, without paying for every token.

    \b
    cg ask clip.mp4 "what is happening?"
    cg ask clip.mp4 "who speaks?" "what colour is the car?" --json
    cg batch videos/ -q "what is happening?" -o answers.jsonl
    cg profile labelled.jsonl --pruner contextguard,random,evs
    cg calibrate videos/ -q "what is happening?" --risk 0.05 -o mine.yaml
    cg fetch-predictor

    Exit codes: 0 all answered; 1 the run failed; 2 usage; 3 some items failed; 4 nothing to do; 5 nothing can be
    certified; 130 interrupted. CG_DEBUG=1 shows tracebacks.
    """
    if context.invoked_subcommand is None:
        print(FIRST_STEPS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``cg``: any error becomes one line on stderr and an exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is loaded, here or in a worker
    _stand_in_for_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an answer that its encoding lacks letters for
    show_debug_log()
    try:
        code = app(arguments, standalone_mode=False, prog_name="cg")
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer turns Ctrl-C into this code, and says nothing
            _fail("interrupted", code)
    except (CgError, TyperException) as error:
        log.debug("the command failed", exc_info=True)
        context = getattr(error, "ctx", None)
        usage = "" if isinstance(error, CgError) else f" ({context.command_path if context else 'cg'} --help)"
        message = _message(error)
        message = message.replace("Value error, ", "")  # pydantic's words for a value out of a closed set
        code = _fail(f"{one_line(message)}{usage}", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_stdout()  # whoever read our output has left
        code = 1
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            code = _fail_of_a_bug(error)
        else:
            _drop_stdout()
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            code = _fail(f"cannot write {error.filename or 'stdout'}: {reason}", 1)
    except Exception as error:
        code = _fail_of_a_bug(error)
    if code == INTERRUPTED:
        _leave(code)
    sys.exit(code)


def _message(error: CgError | TyperException) -> str:
    """What an error says, with the option that an unknown one is nearest to."""
    option, known = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if option and hasattr(error, "possibilities"):
        near = get_close_matches(option.lstrip("-"), [name.lstrip("-") for name in known or ()])
        return f"no option {option}" + (f", did you mean --{near[0]}?" if near else "")
    return error.format_message() if isinstance(error, TyperException) else str(error)


def _leave(code: int) -> None:
    """End the process with ``code`` for sure. When Ctrl-C hits Python code that an extension module runs, the
    interpreter remembers it and dies of the signal instead, whatever code ``sys.exit`` was given."""
    atexit._run_exitfuncs()  # worker processes end
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its reader may have left
            stream.flush()
    os._exit(code)


def _stand_in_for_closed_streams() -> None:
    """Open what whoever started this process has closed (``>&-``), so that no file gets its number: stdin is empty, and
    what is written to stdout fails when it is flushed."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (until the end)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _drop_stdout() -> None:
    """What is still buffered must not be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail_of_a_bug(error: Exception) -> int:
    log.debug("the command failed", exc_info=True)
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return _fail(f"{message} (a bug in cg; CG_DEBUG=1 shows the traceback)", 1)


def _fail(message: str, code: int) -> int:
    print(f"cg: error: {printable(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

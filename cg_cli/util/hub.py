"""One way from an exception of huggingface_hub to a line that says what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from cg_cli.errors import CgError, UsageError
from cg_cli.util.text import first_line

TRANSIENT = (408, 429, 500, 502, 503, 504)  # HTTP statuses that a later try may not meet


class HubUnreachable(UsageError):
    """The hub did not answer, or not as it should: another try may help."""


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """huggingface_hub logs nothing below an error meanwhile: what goes wrong is said in one line, by us."""
    from huggingface_hub import utils

    verbosity = utils.logging.get_verbosity()
    utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def hub_errors(
    what: str, file: str, *, revision: str | None = None, offline: bool = False, otherwise: str = ""
) -> Iterator[None]:
    """Turns whatever huggingface_hub raises while it fetches ``file`` of ``what`` into one line.

    Args:
        what: e.g. ``model owner/name``.
        revision: that was asked for.
        offline: only the cache was asked.
        otherwise: what else to try where the repository does not exist or cannot be reached, e.g. ``give a directory``.

    Raises:
        FileNotFoundError: the repository has no such file.
        HubUnreachable: the network, or the hub, failed.
        UsageError: no such repository or revision, no access, nothing in the cache, no space.
        CgError: any other answer of the hub.
    """
    import httpx2
    from huggingface_hub import constants, errors

    hint = f", or {otherwise}" if otherwise else ""
    try:
        with quiet_hub():
            yield
    except errors.GatedRepoError:
        raise UsageError(f"{what} is gated: ask for access on its hub page, then run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise UsageError(f"no {what} on the hub: check the name{hint} (a private one needs `hf auth login`)") from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{what} has no revision {revision}") from None
    except errors.LocalEntryNotFoundError as error:
        if offline or constants.is_offline_mode():
            raise UsageError(
                f"{what} is not in the local cache; run once without --offline and HF_HUB_OFFLINE"
            ) from error
        cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
        raise HubUnreachable(
            f"cannot reach the hub at {constants.ENDPOINT}{cause} for {file} of {what}: check the network{hint}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(file) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in TRANSIENT:
            raise HubUnreachable(f"HTTP {status} from {constants.ENDPOINT} for {file} of {what}") from error
        if status in (401, 403):
            raise UsageError(
                f"{what} is not for everybody (HTTP {status}): run `hf auth login`, or check HF_TOKEN"
            ) from error
        raise CgError(f"{what}: HTTP {status} from {constants.ENDPOINT}") from error
    except httpx2.TransportError as error:
        raise HubUnreachable(
            f"the download of {file} of {what} broke off ({first_line(error)}): run again, what is whole stays"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(f"{what} cannot be a repository: {first_line(error)}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UsageError(
                f"no space left for {file} of {what}: make room and run again, "
                "or set HF_HOME to a folder on another disk"
            ) from error
        if error.errno is None and "Consistency check" in str(error):  # of a length; it is a plain OSError there
            raise HubUnreachable(f"{file} of {what} came incomplete") from error
        raise UsageError(f"cannot fetch {file} of {what}: {first_line(error)}") from error

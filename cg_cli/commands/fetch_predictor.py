"""``cg fetch-predictor``: which audio-to-visual predictors there are, and how to get one."""

from __future__ import annotations

import json as encode
from typing import Annotated

from cg_cli.commands.parameters import argument, option, with_settings
from cg_cli.errors import UsageError
from cg_cli.settings.table import Settings

SOURCE_HELP = (
    "what to install: a name from the list, OWNER/NAME[@REVISION] on the hub, a URL, a file or a folder; "
    "without it, the list"
)


@with_settings("fetch")
def fetch_predictor(
    source: Annotated[
        str | None,
        argument(metavar="SOURCE", help=SOURCE_HELP),
    ] = None,
    default: Annotated[
        bool,
        option("--default", help="make it the default of the model it was trained for, instead of another"),
    ] = False,
    remove: Annotated[str | None, option("--remove", metavar="NAME", help="remove an installed predictor")] = None,
    sha256: Annotated[
        str | None, option("--sha256", metavar="HEX", help="refuse weights with any other SHA-256")
    ] = None,
    json: Annotated[bool, option("--json", help="print one object a predictor on stdout")] = False,
    quiet: Annotated[bool, option("--quiet", help="no progress, no notes on stderr")] = False,
    *,
    settings: Settings,
) -> None:
    """List, install or remove audio-to-visual predictors.

    What is installed is checked, whole, and never a pickle. An installed predictor is used where --predictor names it;
    the default of a model, with that model. An interrupted download goes on when the command is run again. HF_TOKEN,
    HF_ENDPOINT, HF_HOME and proxies count, as everywhere.

    \b
    cg fetch-predictor
    cg fetch-predictor someone/a2v-qwen2.5-omni-7b@v1 --default
    cg fetch-predictor https://example.org/a2v-7b.safetensors --sha256 6f1c...
    cg fetch-predictor my-a2v/            # written by cg train-predictor --publish-dir my-a2v
    cg fetch-predictor my-a2v --default   # an installed one: only makes it the default
    cg fetch-predictor --remove my-a2v
    """
    from cg_cli.console.predictors import FetchProgress, print_installed, print_predictors, print_removed
    from cg_cli.console.reporter import Reporter
    from cg_cli.predictors import fetch, sources

    reporter = Reporter(quiet=quiet)
    if remove is not None:
        if source is not None or default or sha256 is not None:
            raise UsageError("--remove NAME takes no SOURCE, --default or --sha256: run the two one after the other")
        fetch.remove(remove, FetchProgress(reporter))
        if json:
            print(encode.dumps({"name": remove, "installed": False}))
        print_removed(reporter, remove)
        return
    if source is None:
        if sha256 is not None:
            raise UsageError("--sha256 says what one predictor has to be: name it")
        if default:
            raise UsageError("--default marks one predictor: name it")
        rows = fetch.listing()
        if json:
            for row in rows:
                print(encode.dumps(row))
        else:
            print_predictors(reporter, rows, sources.no_predictor_for("Qwen2.5-Omni or video-SALMONN 2+"))
        return
    row = fetch.install(
        source, sha256=sha256, offline=settings.offline, default=default, listener=FetchProgress(reporter)
    )
    if json:
        print(encode.dumps(row))
    print_installed(reporter, row)

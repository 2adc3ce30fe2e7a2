"""``cg`` as a command that starts at once: a process that has imported everything forks for each call.

Starting Python with torch takes seconds; pages have a hundred commands. What runs is the program itself, with the
caller's arguments, environment, folder and streams.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

CLIENT = """\
#!{python} -S
import array, json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(call).to_bytes(8)], [0, 1, 2])
server.sendall(call)
sys.exit(int(server.recv(8) or b"1"))
"""


def write_client(path: Path, address: str) -> None:
    """A command at ``path`` that calls the server at ``address``."""
    path.write_text(CLIENT.format(python=sys.executable, address=address))
    path.chmod(0o755)


def serve(address: str) -> None:
    """Answers calls until killed."""
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import cg_cli.engine.setup  # noqa: F401
    from cg_cli.main import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        while True:
            connection, _ = server.accept()
            if os.fork():
                connection.close()
                continue
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            size, streams, _, _ = socket.recv_fds(connection, 8, 3)
            data = b""
            while len(data) < int.from_bytes(size):
                data += connection.recv(1 << 16)
            arguments, folder, environment = json.loads(data)
            for target, stream in enumerate(streams):
                os.dup2(stream, target)
                os.close(stream)
            sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            sys.argv = ["cg", *arguments]
            code = 1
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                connection.sendall(str(code).encode())
                os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])

"""``python -m recbole_stream serve MODEL``: recommendations by HTTP, and a page to try them."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import logging
import math
import socket
from dataclasses import replace

from recbole_stream.errors import InputError
from recbole_stream.serving.recommender import Recommender

__all__ = ["arguments", "command"]

_NEEDED = ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("model", metavar="MODEL", help="an exported model, or the folder of a run")
    parser.add_argument("--host", default="127.0.0.1", help="address to answer at (0.0.0.0: at all of the machine's)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--batch", type=int, help="histories ranked together (default 64)")
    parser.add_argument("--queue", type=int, help="histories that may wait; beyond, 503 is answered (default 1024)")
    parser.add_argument(
        "--patience", type=float, help="seconds a request may take; beyond, 503 is answered (default 10)"
    )


def command(options: argparse.Namespace) -> None:
    """Answer requests until interrupted.

    Raises:
        InputError: what serves is not installed, an option is impossible, the port is taken, or there is no model.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'serve needs {missing[0]}, which is not installed: pip install "recbole-stream[serve]".')
    import uvicorn

    from recbole_stream.serving.app import app_of
    from recbole_stream.serving.schema import Limits

    chosen = {name: getattr(options, name) for name in ("batch", "queue", "patience")}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name, value in chosen.items():
        if not 0 < value < math.inf:
            raise InputError(f"--{name} is {value}, but must be more than 0 and finite.")
    limits = replace(Limits(), **chosen)
    # each answer counts its unknown items, which is enough for a service
    logging.getLogger("recbole_stream.serving.recommender").setLevel(logging.ERROR)
    listener = _listen(options.host, options.port)
    with listener:
        app = app_of(Recommender.load(options.model), limits)
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"Answering at http://{host}:{listener.getsockname()[1]}/ until Ctrl+C", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=int(limits.patience) + 1
        )
        uvicorn.Server(config).run(sockets=[listener])
    raise KeyboardInterrupt  # nothing else ends a service; whether uvicorn raises it depends on who handles signals


def _listen(host: str, port: int) -> socket.socket:
    """A socket that holds the port from now on, before the model is read, which may take long."""
    if not 0 <= port < 1 << 16:
        raise InputError(f"--port is {port}, but must be from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        raise InputError(f"There is no address {host!r}: correct --host.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as fault:
        listener.close()
        if fault.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} of {host} is in use: name another --port.") from None
        if fault.errno == errno.EACCES:
            raise InputError(f"Port {port} needs more rights than this user has: name a --port from 1024.") from None
        raise InputError(f"{host!r} is no address of this machine: correct --host.") from None
    return listener

"""The process that ``table_servers`` starts: moto's server, one request at a time, so that conditional writes are atomic."""

from __future__ import annotations

import logging
import sys
from threading import Lock
from typing import TYPE_CHECKING, Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

if TYPE_CHECKING:
    from collections.abc import Callable


class OneAtATime:
    """Passes requests on to *app* one after another; connections are kept meanwhile."""

    def __init__(self, app: Callable[[Any, Any], Any]) -> None:
        self._app = app
        self._turn = Lock()

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        with self._turn:
            return list(self._app(environ, start_response))


class Handler(WSGIRequestHandler):
    """Sends its answers at once: by default Nagle's algorithm holds them back for 40 ms."""

    disable_nagle_algorithm = True


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=Handler)

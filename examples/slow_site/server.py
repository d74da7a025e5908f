"""A web site whose pages take their time: a threaded Flask server, to try blocking and asynchronous clients on.

Run it with ``python examples/slow_site/server.py``. Each request has a thread of its own, which sleeps for the length
of the wait, so the server answers as many requests at a time as it is asked.
"""

from __future__ import annotations

import argparse
import time

from flask import Flask, Response
from werkzeug.serving import BaseWSGIServer, make_server

_BACKLOG = 4096


def make_app(seconds: float) -> Flask:
    """Return the site as a WSGI application: ``/page/<n>`` answers after ``seconds``, all other pages at once."""
    app = Flask(__name__)

    @app.get("/")
    def index() -> str:
        return f"<!doctype html><title>Slow site</title><h1>Slow site</h1><p>/page/1 takes {seconds:g} s.</p>"

    @app.get("/page/<int:n>")
    def page(n: int) -> str:
        began = time.perf_counter()
        time.sleep(seconds)  # the point of this site: the thread is blocked, as by a slow database
        took = time.perf_counter() - began
        return f"<!doctype html><title>Page {n}</title><h1>Page {n}</h1><p>This took {took:.1f} s.</p>"

    @app.get("/robots.txt")
    def robots() -> Response:
        return Response("User-agent: *\nAllow: /\n", mimetype="text/plain")

    return app


def serve(seconds: float, host: str = "127.0.0.1", port: int = 5000) -> BaseWSGIServer:
    """Return a server that listens already; its ``serve_forever()`` runs it. Port 0 takes any free port."""
    server = make_server(host, port, make_app(seconds), threaded=True)
    # Werkzeug lets 128 connections wait to be accepted. A crawler opens thousands at once, and each one over the limit
    # would try again only after a second.
    server.socket.listen(_BACKLOG)
    return server


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a page takes")
    options = parser.parse_args()
    server = serve(options.seconds, options.host, options.port)
    print(f"http://{server.host}:{server.port}/page/1 takes {options.seconds:g} s; Ctrl+C stops the server", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    main()

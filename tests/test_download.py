"""Against a local server: a file comes whole, a slow source is given up, and a silent host is not waited for."""

import http.server
import math
import threading
import time

import pytest

from helpers import download

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def serve(monkeypatch):
    """Start a server that sends `pieces` of CONTENT, `pause` seconds apart; returns its address."""
    servers = []

    def start(pieces, pause, claimed=0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(claimed or len(CONTENT)))
                self.end_headers()
                size = len(CONTENT) // pieces
                for start in range(0, len(CONTENT), size):
                    try:
                        self.wfile.write(CONTENT[start : start + size])
                    except OSError:  # given up
                        return
                    time.sleep(pause)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/file"

    monkeypatch.setattr(download, "TRIAL", 0.2)
    monkeypatch.setattr(download, "PATIENCE", 1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield start
    for server in servers:
        server.shutdown()


def test_a_file_comes_whole_and_its_speed_is_said(serve, tmp_path, capsys):
    download.download(serve(pieces=10, pause=0.05), tmp_path / "file", longest=60)
    assert (tmp_path / "file").read_bytes() == CONTENT
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  downloading 0 MB" and "MB/s" in lines[1] and "s left" in lines[1]


def test_a_source_that_trickles_is_given_up_after_the_trial(serve, tmp_path):
    began = time.monotonic()
    with pytest.raises(download.TooSlow, match="MB/s it would take") as caught:
        download.download(serve(pieces=1000, pause=0.05), tmp_path / "file", longest=5)
    assert time.monotonic() - began < 2 and caught.value.seconds > 5


def test_the_last_source_may_trickle(serve, tmp_path):
    download.download(serve(pieces=20, pause=0.05), tmp_path / "file", longest=math.inf)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_silent_host_is_given_up(serve, tmp_path):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        download.download(serve(pieces=2, pause=5), tmp_path / "file")
    assert time.monotonic() - began < 4


def test_a_host_that_stops_too_early_is_named(serve, tmp_path):
    with pytest.raises(OSError, match="the host stopped after 0.0 of 20.0 MB"):
        download.download(serve(pieces=1, pause=0, claimed=20_000_000), tmp_path / "file")

"""Download a file, saying how fast it comes."""

import math
import time
import urllib.request
from pathlib import Path

from helpers.errors import Problem

PATIENCE = 10  # seconds without a byte before a host is given up
TRIAL = 10  # seconds after which the measured speed decides
LONGEST = 300  # seconds that a download may take while another source is left


class TooSlow(Problem):
    """A download would take longer than it may; `seconds` is the estimate."""

    def __init__(self, seconds: float, speed: float):
        super().__init__(f"at {speed / 1e6:.2f} MB/s it would take {seconds / 60:.0f} minutes")
        self.seconds = seconds


def download(url: str, target: Path, longest: float = math.inf) -> None:
    """Stream a file from http, https or file to `target`, with a line on its size and speed every TRIAL seconds.

    longest: seconds that it may take. Raises TooSlow as soon as the speed shows that it would take
    longer, and OSError if the host is silent or stops before the end.
    """
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer, target.open("wb") as file:
        size, got = int(answer.headers.get("Content-Length") or 0), 0
        print(f"  downloading {size / 1e6:.0f} MB", flush=True)
        began = said = time.monotonic()
        while chunk := answer.read1(2**20):
            got += file.write(chunk)
            now = time.monotonic()
            if now - said < TRIAL:
                continue
            said, speed = now, got / (now - began)
            left = (size - got) / speed
            if left > longest:
                raise TooSlow(left, speed)
            print(f"  {got / 1e6:.0f} MB so far, {speed / 1e6:.1f} MB/s, {max(left, 0):.0f} s left", flush=True)
    if got < size:
        raise OSError(f"the host stopped after {got / 1e6:.1f} of {size / 1e6:.1f} MB")

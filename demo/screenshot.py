"""The picture of the search page in the README: a real query to the demo's index, as Chromium shows it.

    python -m demo.screenshot docs/images/search.png [--index demo-data/index] [--query "a small cup of coffee"]

Needs `chromium` or `google-chrome` on the path. 256 colours are enough, and a third of the bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from PIL import Image

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_SIZE_PX = (1280, 1270)  # two rows of results
_PATIENCE_S = 180
# A picture of the page without thumbnails has fewer.
_EMPTY_BYTES = 200_000
# The page comes by a web socket: so much of the page's own time passes before the picture is taken.
_SETTLE_MS = 60_000


def main() -> None:
    """Parse the command line, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a .png")
    parser.add_argument("--index", default="demo-data/index")
    parser.add_argument("--query", default="a small cup of coffee")
    arguments = parser.parse_args()
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(_BROWSERS)} is on the path: install one, e.g. apt-get install chromium")
    with _page(arguments.index) as address:
        take_picture(browser, f"{address}/?q={quote(arguments.query)}", arguments.out)


def take_picture(browser: str, address: str, out: Path) -> None:
    """Writes what the browser shows at an address, once there are results."""
    with tempfile.TemporaryDirectory() as folder:
        command = [browser, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        command += ["--window-size={},{}".format(*_SIZE_PX), f"--virtual-time-budget={_SETTLE_MS}"]
        raw, best_bytes = Path(folder, "raw.png"), _EMPTY_BYTES
        deadline_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline_s:  # the first pictures may be of a page that is not whole yet
            one = [*command, f"--screenshot={raw}", address]
            subprocess.run(one, check=True, timeout=_PATIENCE_S, capture_output=True)
            num_bytes = raw.stat().st_size
            if _EMPTY_BYTES < num_bytes <= 1.01 * best_bytes:
                Image.open(raw).convert("RGB").quantize(256).save(out, optimize=True)
                return
            best_bytes = max(best_bytes, num_bytes)
    raise SystemExit(f"there are no results at {address}")


@contextlib.contextmanager
def _page(index: str) -> Iterator[str]:
    """The address of the search page, as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "indexer", "ui", index, "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as page:
        try:
            _wait_for(page, port)
            yield f"http://localhost:{port}"
        finally:
            page.terminate()


def _wait_for(page: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while page.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        time.sleep(0.2)
    raise SystemExit("the page did not start")


if __name__ == "__main__":
    main()

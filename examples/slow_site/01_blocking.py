"""Ask for five pages, one after the other, by calls that block."""

import sys
import time
from urllib.request import urlopen

SITE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5000/page"
BEGAN = time.perf_counter()


def say(text: str) -> None:
    print(f"{time.perf_counter() - BEGAN:4.1f} s  {text}", flush=True)


def fetch(n: int) -> str:
    with urlopen(f"{SITE}/{n}") as response:
        page: str = response.read().decode()
    return page


for n in range(1, 6):
    page = fetch(n)
    say(f"page {n}: {len(page)} characters")
say("done")

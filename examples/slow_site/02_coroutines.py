"""Ask for five pages by coroutines, but await each one before the next begins."""

import asyncio
import sys
import time

import aiohttp

SITE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5000/page"
BEGAN = time.perf_counter()


def say(text: str) -> None:
    print(f"{time.perf_counter() - BEGAN:4.1f} s  {text}", flush=True)


async def fetch(session: aiohttp.ClientSession, n: int) -> str:
    async with session.get(f"{SITE}/{n}") as response:
        return await response.text()


async def main() -> None:
    async with aiohttp.ClientSession() as session:
        for n in range(1, 6):
            page = await fetch(session, n)
            say(f"page {n}: {len(page)} characters")
    say("done")


asyncio.run(main())

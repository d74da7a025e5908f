"""Ask for five pages by five tasks, which wait at the same time."""

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
        tasks = [asyncio.create_task(fetch(session, n)) for n in range(1, 6)]
        say(f"{len(tasks)} tasks made, nothing sent yet")
        for n, task in enumerate(tasks, 1):
            page = await task
            say(f"page {n}: {len(page)} characters")
    say("done")


asyncio.run(main())

"""Ask for five pages, at most two at a time: wait for whichever is done first, then start the next."""

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
    waiting = [1, 2, 3, 4, 5]
    running: set[asyncio.Task[str]] = set()
    async with aiohttp.ClientSession() as session:
        while waiting or running:
            while waiting and len(running) < 2:
                n = waiting.pop(0)
                running.add(asyncio.create_task(fetch(session, n), name=f"page {n}"))
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                say(f"{task.get_name()}: {len(task.result())} characters, {len(running)} running, {len(waiting)} left")
    say("done")


asyncio.run(main())

"""Ask for five pages; each task, when it is done, calls a plain function with its page."""

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


def parse(task: asyncio.Task[str]) -> None:
    if error := task.exception():
        say(f"{task.get_name()} failed: {error}")
    else:
        say(f"{task.get_name()}: {len(task.result())} characters")


async def main() -> None:
    async with aiohttp.ClientSession() as session:
        tasks = []
        for n in range(1, 6):
            task = asyncio.create_task(fetch(session, n), name=f"page {n}")
            task.add_done_callback(parse)
            tasks.append(task)
        await asyncio.wait(tasks)
    say("done")


asyncio.run(main())

"""Ask for one page, and let three coroutines wait for it by one future."""

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


async def reader(name: str, page: asyncio.Future[str]) -> None:
    say(f"{name} waits; done: {page.done()}")
    text = await page
    say(f"{name} got {len(text)} characters; done: {page.done()}")


async def main() -> None:
    page: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    readers = [asyncio.create_task(reader(name, page)) for name in ("Ada", "Grace", "Edsger")]
    async with aiohttp.ClientSession() as session:
        page.set_result(await fetch(session, 1))
    for task in readers:
        await task


asyncio.run(main())

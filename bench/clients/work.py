"""One work of the comparison of clients, with the official Python SDK: work.py WORK URL KEY FILE. Prints lines "name=value"."""

import asyncio
import logging
import os
import resource
import sys
import time
from datetime import timedelta

from opensandbox import Sandbox
from opensandbox.config import ConnectionConfig

name, url, key, path = sys.argv[1:5]
if name == "start":
    sys.exit(0)  # loading is all that is measured

logging.disable(logging.CRITICAL)
config = ConnectionConfig(domain=url.removeprefix("http://"), api_key=key, protocol="http", request_timeout=timedelta(seconds=300))


async def create():
    return await Sandbox.create("any", connection_config=config)


async def end(box):
    await box.kill()
    await box.close()


async def roundtrip(box):
    times = []
    for _ in range(20):
        began = time.perf_counter()
        result = await box.commands.run("true")
        assert result.exit_code == 0
        times.append((time.perf_counter() - began) * 1000)
    print(f"median={sorted(times)[9]}")


async def lines(box):
    result = await box.commands.run("seq 200000")
    assert len(result.logs.stdout) == 200000


async def upload(box):
    with open(path, "rb") as file:
        await box.files.write_file("/tmp/big", file)


async def download(box):
    with open(path + ".down", "wb") as file:
        async for piece in await box.files.read_bytes_stream("/tmp/big"):
            file.write(piece)
    os.remove(path + ".down")


async def many(box):
    results = await asyncio.gather(*(box.commands.run("sleep 0.5") for _ in range(100)))
    assert all(result.exit_code == 0 for result in results)


async def sandboxes(_):
    limit = asyncio.Semaphore(32)

    async def use():
        async with limit:
            box = await create()
            await box.commands.run("true")
            await end(box)

    await asyncio.gather(*(use() for _ in range(200)))


async def main():
    box = await create() if name != "sandboxes" else None
    if name == "download":
        await box.commands.run("head -c 268435456 /dev/zero > /tmp/big")
    processor, began = time.process_time(), time.perf_counter()
    await globals()[name](box)
    print(f"seconds={time.perf_counter() - began}")
    print(f"processor={time.process_time() - processor}")
    if box:
        await end(box)
    print(f"peak={resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")


asyncio.run(main())

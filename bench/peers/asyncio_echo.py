"""Lines on asyncio streams: tcp|unix PORT|PATH."""
import asyncio
import sys

kind, where = sys.argv[1:]


async def handle(reader, writer):
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    if kind == "unix":
        server = await asyncio.start_unix_server(handle, where, backlog=1024)
    else:
        server = await asyncio.start_server(handle, "127.0.0.1", int(where), backlog=1024)
    await server.serve_forever()


asyncio.run(main())

"""A store that speaks S3 and fails now and then: moto's server behind a proxy that answers 500, 503, or not at all.

python faulty_store.py LISTEN_PORT SERVER_PORT SEED FAILING STALLING
"""

import asyncio
import random
import sys

ANSWERS = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
)


async def relay(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while block := await source.read(1 << 16):
        target.write(block)
        await target.drain()


async def main(port: int, server_port: int, seed: int, failing: float, stalling: float) -> None:
    """Serve for ever; of all connections a share `failing` gets an error and a share `stalling` no answer."""
    rng = random.Random(seed)  # noqa: S311

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = rng.random()
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if fate < stalling:
                await reader.read()  # until the client has given up
            elif fate < stalling + failing:
                writer.write(rng.choice(ANSWERS))
                await writer.drain()
            else:
                await forward(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    async def forward(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer, upstream = await asyncio.open_connection("127.0.0.1", server_port)
        # One request a connection, so that each has its own fate.
        upstream.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        sending = asyncio.create_task(relay(reader, upstream))
        try:
            await relay(answer, writer)
        finally:
            sending.cancel()
            upstream.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    listen, behind, seed_, *shares = sys.argv[1:]
    asyncio.run(main(int(listen), int(behind), int(seed_), *map(float, shares)))

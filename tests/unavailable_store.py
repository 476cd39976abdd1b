"""A relay to an S3 server. While a file exists, it cuts open connections, and answers new ones with 503.

python unavailable_store.py PORT HOST PORT-OF-HOST FILE
"""

import asyncio
import contextlib
import re
import sys
from pathlib import Path

ANSWER = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_unavailable: Path) -> None:
    """Copy bytes; a connection over which bytes pass while the server is unavailable is closed."""
    try:
        while (data := await reader.read(65_536)) and not is_unavailable.exists():
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def main(port: int, host: str, host_port: int, is_unavailable: Path) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if is_unavailable.exists():
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                print(head.split(b"\r\n")[0].decode(), "503", flush=True)  # noqa: T201 # the log of the pod
                writer.write(ANSWER)
                await writer.drain()
                writer.close()
                return
            server_reader, server_writer = await asyncio.open_connection(host, host_port)
            await asyncio.gather(
                relay(reader, server_writer, is_unavailable), relay(server_reader, writer, is_unavailable)
            )

    server = await asyncio.start_server(connected, "0.0.0.0", port)  # noqa: S104 # the port of a pod
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))

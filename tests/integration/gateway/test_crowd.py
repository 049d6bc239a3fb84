"""More connections than there are places: those that are there are served, kitd keeps its files."""

import asyncio

from kitd.gateway.server import MAX_CONNECTIONS


async def test_connections_beyond_the_bound_are_turned_away_and_the_places_come_back(client):
    """Half requests hold their places; when they go, others are served again."""
    host, port = client._base_url.host, client._base_url.port
    begun = []
    for _ in range(MAX_CONNECTIONS):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /v2/ HTTP/1.1\r\nHo")
        begun.append(writer)
    reader, writer = await asyncio.open_connection(host, port)
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    writer.close()
    for writer in begun:
        writer.close()
    async with asyncio.timeout(10):
        while True:
            try:
                async with client.get("/v2/") as response:
                    status = response.status
            except OSError:
                status = 503
            if status == 200:
                break
            assert status == 503
            await asyncio.sleep(0.01)

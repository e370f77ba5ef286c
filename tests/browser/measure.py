"""Prints how long the server takes for each page and how large the page is, with 100,000 deliveries in the database."""

import http.client
import statistics
import tempfile
import time

from pages import OUTSIDE, of_role
from world import COOKIE, LOADED, World

ROUNDS = 20


def measure(connection, path, cookie):
    """The median of the milliseconds until the whole page is here, the slowest, and the bytes."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        connection.request("GET", path, headers={"Accept": "text/html", "Cookie": f"{COOKIE}={cookie}"})
        answer = connection.getresponse()
        body = answer.read()
        times.append((time.perf_counter() - begun) * 1000)
        assert answer.status == 200, f"{path}: {answer.status}"
    return statistics.median(times), max(times), len(body)


def main():
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        try:
            connection = http.client.HTTPConnection(world.server.host)
            pages = [(name, path, world.operator) for name, path in of_role("operator", world.names).items()]
            pages += [(name, path.format(**world.names), "") for name, path in OUTSIDE.items()]
            print(f"{LOADED:,} deliveries, {ROUNDS} requests each\n")
            print(f"{'page':28}{'median ms':>10}{'slowest':>10}{'bytes':>10}")
            for name, path, cookie in pages:
                median, slowest, length = measure(connection, path, cookie)
                print(f"{name:28}{median:10.1f}{slowest:10.1f}{length:10,}")
        finally:
            world.stop()


if __name__ == "__main__":
    main()

"""Makes the log of an imagined server, and divides it."""

import os
import random
from pathlib import Path

PATHS = [
    "/",
    "/index.html",
    "/login",
    "/api/v1/items",
    "/api/v1/users",
    "/static/app.js",
    "/static/style.css",
]
AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64)",
    "Mozilla/5.0 (Windows NT 10.0; Win64)",
    "curl/8.1.2",
    "Googlebot/2.1",
]
rng = random.Random(0)


def line() -> str:
    host = f"10.{rng.randrange(4)}.{rng.randrange(256)}.{rng.randrange(256)}"
    day, minute = f"{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}", rng.randrange(24 * 60)
    when = f"2026-{day}T{minute // 60:02}:{minute % 60:02}"
    path, status = rng.choice(PATHS), rng.choices([200, 304, 404, 500], [80, 12, 6, 2])[0]
    if path.startswith("/api"):
        path += f"/{rng.randrange(10_000)}"
    verb, agent = rng.choices(["GET", "POST"], [9, 1])[0], rng.choice(AGENTS)
    return f'{host} [{when}] "{verb} {path} HTTP/1.1" {status} "{agent}"'


for split, count in {"train": 2000, "validation": 1000, "test": 1000}.items():
    folder = Path(os.environ["AUTORESEARCH_DATA"]) / split
    folder.mkdir()
    (folder / "log.txt").write_text("\n".join(line() for _ in range(count)))

"""A PostgreSQL server of the tests' own: Debian's package, a folder of its own, a free port of loopback."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path | None:
    "Where initdb and pg_ctl are."
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4])) or [shutil.which("initdb")]
    return Path(found[-1]).parent if found[-1] else None


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def server(programs: Path) -> Iterator[str]:
    "A running server; its URL lacks the name of a database."
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
    if as_user:
        shutil.chown(folder, "postgres")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"

    def call(name: str, *args: str) -> None:
        subprocess.run([*as_user, str(programs / name), *args], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    call("initdb", "-D", str(folder / "data"), "-U", "tester", "--auth=trust", "-E", "UTF8", "--no-sync")
    call("pg_ctl", "-D", str(folder / "data"), "-l", str(folder / "log"), "-o", options, "-w", "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}"
    finally:
        call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)

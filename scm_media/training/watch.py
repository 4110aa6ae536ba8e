"""Ranks of one training watch over each other: where one dies, the others say which one and why, and end.

Collectives do not name the rank that is gone, and some of them wait half an hour for it. Here rank 0 holds a TCP
connection to every other rank, over which nothing is sent before one of them ends: the operating system closes the
connections of a process that dies, and keep-alive probes notice a machine that is gone.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch

from scm_media.display import printable

SECONDS_TO_END = 20.0
"""Seconds in which a process ends by itself (it may be writing a checkpoint) once another rank is gone."""
SECONDS_FOR_NEWS = 3.0
"""Seconds within which the watch knows of a death that a collective has noticed."""
SECONDS_TO_CONNECT = 60.0
SECONDS_TO_SAY_WHO = 5.0
LONGEST_WORD = 1 << 16
LONGEST_WAIT = timedelta(hours=6)
"""Time that ranks wait in a collective, for example while rank 0 measures an autoencoder or draws sheets."""
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""A machine that does not answer counts as gone after 10 + 4 · 5 seconds."""
_open: set[socket.socket] = set()


@contextmanager
def watch(fabric: Any) -> Iterator[None]:
    """Watches over the other ranks while its block runs; all ranks must enter it, and a single one is left alone.

    Where a rank dies or raises an error, rank 0 prints which one and why (if it is rank 0, the others do), and
    SystemExit(1) takes the place of what its collectives raise. A process whose main thread does not notice, since it
    hangs in a collective, is ended after ``SECONDS_TO_END``.
    """
    if fabric.world_size == 1:
        yield
        return
    watched = _Watch(fabric)
    error: BaseException | None = None
    try:
        yield
    except BaseException as caught:
        error = caught
        if isinstance(caught, RuntimeError) and watched.is_lost(SECONDS_FOR_NEWS):
            raise SystemExit(1) from caught
        raise
    finally:
        watched.leave(error)


class _Watch:
    """Holds the connections of one rank and what it knows of the others."""

    def __init__(self, fabric: Any) -> None:
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self._children: list[subprocess.Popen] = []
        self._lost, self._lock = threading.Event(), threading.Lock()
        self._left = False
        self._names: dict[int, str] = {}
        self._connections = self._accept(fabric) if self.rank == 0 else self._connect(fabric)
        fabric.barrier()  # every rank has been heard before one of them says its last word
        _set_timeout(LONGEST_WAIT)
        if len(self._connections) == self.world - 1:
            self._children = _take_children(fabric)
        for rank, connection in self._connections.items():
            threading.Thread(target=self._listen, args=(rank, connection), daemon=True, name=f"watch-{rank}").start()

    def _accept(self, fabric: Any) -> dict[int, socket.socket]:
        found: dict[int, socket.socket] = {}
        token, end = secrets.token_hex(16), time.monotonic() + SECONDS_TO_CONNECT
        with _serve(self.world) as server:
            fabric.broadcast({"port": server.getsockname()[1], "token": token, "name": _own_name()})
            while len(found) < self.world - 1 and (left := end - time.monotonic()) > 0:
                server.settimeout(left)
                try:
                    connection = server.accept()[0]
                except TimeoutError:
                    break
                connection.settimeout(SECONDS_TO_SAY_WHO)
                word = _read(connection)
                if isinstance(word, dict) and hmac.compare_digest(ascii(word.get("token")), ascii(token)):
                    found[word["rank"]], self._names[word["rank"]] = _kept(connection), word["name"]
                else:
                    connection.close()
        for rank in set(range(1, self.world)) - found.keys():
            print(
                f"rank {rank} of {self.world} is not watched over, it cannot reach {_address()}: if it dies, the "
                "others may wait for it",
                file=sys.stderr,
            )
        return found

    def _connect(self, fabric: Any) -> dict[int, socket.socket]:
        first: Mapping[str, Any] = fabric.broadcast(None)
        self._names[0] = first["name"]
        try:
            connection = socket.create_connection((_address(), first["port"]), timeout=SECONDS_TO_CONNECT)
            _send(connection, {"token": first["token"], "rank": self.rank, "name": _own_name()})
        except OSError:
            return {}  # rank 0 says so
        return {0: _kept(connection)}

    def is_lost(self, seconds: float) -> bool:
        """Returns whether a rank is gone, of which it may take some seconds to hear."""
        return self._lost.wait(seconds)

    def leave(self, error: BaseException | None) -> None:
        """Tells the others that this rank ends, and why where that is an error."""
        with self._lock:
            self._left = True
        failed = error is not None and not isinstance(error, SystemExit | GeneratorExit)
        self._tell(printable(" ".join(f"{type(error).__name__}: {error}".split()))[:2000] if failed else None)
        for connection in self._connections.values():
            _open.discard(connection)
            with suppress(OSError):  # its other side has closed it
                connection.shutdown(socket.SHUT_RDWR)  # ends the thread that listens
            connection.close()

    def _tell(self, reason: str | None) -> None:
        for connection in self._connections.values():
            with suppress(OSError):  # its process has ended
                _send(connection, {"reason": reason})

    def _listen(self, rank: int, connection: socket.socket) -> None:
        """Waits until a rank ends, and ends this process if that is not how a training ends."""
        word = _read(connection)
        with self._lock:
            if self._left or self._lost.is_set() or (word is not None and word["reason"] is None):
                return
            self._lost.set()
        if self.rank == 0 or word is None:  # what rank 0 has said is printed there
            how = self._describe_end(rank) if word is None else f"stopped ({word['reason']})"
            said = (
                f"scm-media train: rank {rank} of {self.world} ({self._names[rank]}) {how}: all ranks end; the same "
                "command goes on from the last checkpoint"
            )
            print(said, file=sys.stderr, flush=True)
            self._tell(said)
        time.sleep(SECONDS_TO_END)
        sys.stdout.flush()
        os._exit(1)

    def _describe_end(self, rank: int) -> str:
        """Returns how a rank's process ended, as far as is known: its signal or exit code, if it is a child of this."""
        if 0 < rank <= len(self._children):
            try:
                code = self._children[rank - 1].wait(SECONDS_FOR_NEWS)
            except subprocess.TimeoutExpired:
                return "closed its connection"
            if code >= 0:
                return f"ended with exit code {code}, see its output"
            name = signal.Signals(-code).name
            return f"was ended by {name}" + (", maybe for want of memory" if name == "SIGKILL" else "")
        return "is gone: its process was killed, maybe for want of memory, or its machine does not answer"


def _address() -> str:
    """Returns where ranks reach rank 0, as for the process group."""
    return os.environ.get("MASTER_ADDR", "127.0.0.1")


def _take_children(fabric: Any) -> list[subprocess.Popen]:
    """Returns the ranks that Lightning started as children of this one, and takes them out of its own observer.

    That one kills rank 0 within five seconds of a child's end, in the middle of a checkpoint too, and gives no reason.
    """
    started: list[Any] = getattr(fabric.strategy.launcher, "procs", [])
    children = [each for each in started if isinstance(each, subprocess.Popen)]
    if children:
        started.clear()
    return children


def _serve(backlog: int) -> socket.socket:
    """Returns a socket that accepts connections at a free port: of this machine alone where all ranks are on it."""
    if _address() in ("127.0.0.1", "localhost"):
        return socket.create_server(("127.0.0.1", 0), backlog=backlog)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=backlog, dualstack_ipv6=both)


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _kept(connection: socket.socket) -> socket.socket:
    """Returns a connection that lasts: without a time limit, probed, and closed in processes that are forked."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    _open.add(connection)
    return connection


def _send(connection: socket.socket, word: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(word).encode() + b"\n")


def _read(connection: socket.socket) -> Any:
    """Returns what the other side sent, None where it ended before or sent something else."""
    line = b""
    try:
        while not line.endswith(b"\n"):
            part = connection.recv(4096)
            if not part or len(line) > LONGEST_WORD:
                return None
            line += part
        return json.loads(line)
    except (OSError, ValueError, RecursionError):  # also what a stranger may send
        return None


def _set_timeout(timeout: timedelta) -> None:
    """Sets how long collectives wait."""
    distributed = torch.distributed
    if hasattr(distributed, "set_timeout"):  # from torch 2.14 on
        distributed.set_timeout(timeout)
    else:
        distributed.distributed_c10d._set_pg_timeout(timeout)


def _close_in_child() -> None:
    # A worker that is forked shares the connection, and would keep it open after its parent was killed.
    for connection in _open:
        os.close(connection.detach())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)

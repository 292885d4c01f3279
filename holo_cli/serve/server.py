"""Opens the port, runs the web server, and ends it without breaking off what is running."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from holo_cli.errors import HoloError, UsageError
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.serve.app import make_app
from holo_cli.serve.model_pool import ModelPool
from holo_cli.serve.scheduler import Scheduler
from holo_cli.serve.service import Service
from holo_cli.serve.settings import LOOPBACK, ServeSettings

BACKLOG = 2048  # connections that may wait to be accepted
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_address(settings: ServeSettings) -> None:
    """Raises UsageError for an address beyond this machine without a key."""
    if settings.host not in LOOPBACK and not settings.host.startswith("127.") and not settings.key:
        raise UsageError(
            f"Without a key the server answers this machine only, not {settings.host}.",
            next_step="Give --api-key KEY, or set HOLO_API_KEY.",
        )


def listen(settings: ServeSettings) -> socket.socket:
    """The open port. Raises HoloError if it is in use or not to be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            # a port that was closed a moment ago is free; on Windows the option means another thing
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise _unavailable(settings, error) from error
    return listening


def _unavailable(settings: ServeSettings, error: OSError) -> HoloError:
    if error.errno == errno.EADDRINUSE:
        return HoloError(
            f"Port {settings.port} is in use.",
            next_step="Choose another with --port, or stop the program that has it.",
        )
    if isinstance(error, PermissionError):
        return HoloError(
            f"Port {settings.port} may not be opened.", next_step="Choose one above 1023."
        )
    reason = error.strerror or str(error)
    return HoloError(
        f"The address {settings.host} cannot be opened: {reason}.",
        next_step="Check --host.",
    )


class Server(uvicorn.Server):
    """uvicorn's server for one service. `address` is where it listens."""

    def __init__(
        self,
        settings: ServeSettings,
        checkpoints: Sequence[str | None],
        load: Callable[[Path], LoadedModel],
    ) -> None:
        check_address(settings)
        self.socket = listen(settings)
        try:
            self.pool = ModelPool(load, settings.budget, settings.prefix_bytes)
            self.pool.open(checkpoints)
        except BaseException:
            self.socket.close()
            raise
        self.scheduler = Scheduler(settings.rows, settings.queue, self._died)
        self.service = Service(settings, self.pool, self.scheduler)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed = False
        super().__init__(
            uvicorn.Config(
                make_app(self.service),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                http="h11",
                timeout_graceful_shutdown=settings.grace,
                backlog=BACKLOG,
            )
        )

    @property
    def address(self) -> str:
        """Without a path: http://127.0.0.1:8000"""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run_until_stopped(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serves until SIGINT or SIGTERM, or `stop`; `ready` is called before.

        What is running is finished, within the grace time; what waits is refused. Raises HoloError
        where the computing thread failed.
        """
        self.scheduler.start()
        ready()
        try:
            asyncio.run(self._serve_here())
        finally:
            self.scheduler.close()
            self.socket.close()
            self.scheduler.thread.join(timeout=5)
        if self._failed:
            raise HoloError(
                "The server stopped: its computing thread failed.",
                next_step="The traceback above says where. This is a bug in holo.",
            )

    async def _serve_here(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.serve(sockets=[self.socket])

    def stop(self) -> None:
        """From any thread: as SIGTERM does."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_stop)

    def _begin_stop(self) -> None:
        self.scheduler.close()
        self.should_exit = True

    def _died(self) -> None:
        """The computing thread has ended: on purpose, or by a fault."""
        self._failed = not self.should_exit and not self.scheduler.closing
        if self._failed:
            self.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server gently, a second SIGINT at once."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.stop()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signals again at the end; stopping a server is no failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

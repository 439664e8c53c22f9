"""What starts the gateway: ``twistd ws-gateway -c FILE``, and the same in the foreground.

Here alone are the global reactor and the wall clock. Everything is built before twistd forks, and nothing is opened:
sockets are bound when services start with privileges, threads begin when they start without.
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from twisted.application.service import MultiService
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.logfile import LogFile

from gateway import logs
from gateway.app import build
from gateway.config import Config, load
from gateway.errors import ConfigError, GatewayError
from gateway.runtime import share_the_interpreter

_log = Logger()


class Options(usage.Options):
    """What ``twistd ws-gateway`` takes; a configuration that cannot be used ends the process here, in plain lines."""

    optParameters = [
        [
            "config",
            "c",
            None,
            "YAML file; what it leaves out has defaults, and the environment (WSGATEWAY_...) overrides",
        ]
    ]

    def postOptions(self) -> None:
        """Read the configuration."""
        try:
            self.settings = load(self["config"], os.environ)
        except ConfigError as error:
            raise SystemExit(str(error)) from None


def makeService(options: Options) -> MultiService:
    """The gateway, as twistd runs it. Opens nothing."""
    logs.adopt_stdlib()
    sys.excepthook = _plainly
    service = _Plugged(options.parent, options.settings)
    _build(options.settings, options["config"]).setServiceParent(service)
    return service


class _Plugged(MultiService):
    """What twistd gets. ``twistd`` is its own options: they say where the log goes."""

    def __init__(self, twistd: Any, config: Config) -> None:
        super().__init__()
        self._twistd = twistd
        self._config = config

    def setServiceParent(self, parent: Any) -> None:
        """Be part of an application, and its log observer, which counts unless the operator has named one (AppLogger in
        ``twisted.application.app``)."""
        if not self._twistd["syslog"]:
            parent.setComponent(ILogObserver, self._observer())
        super().setServiceParent(parent)

    def _observer(self) -> logs.Observer:
        """Our lines, to where twistd would have written its own."""
        name = self._twistd["logfile"] or ("" if self._twistd["nodaemon"] else "twistd.log")
        stream = _raw(sys.stdout) if name == "-" else LogFile.fromFullPath(name) if name else _raw(sys.stderr)
        return logs.Observer(self._config.logger.level, self._config.logger.format, stream)


def run_foreground(config_path: str | None) -> int:
    """Run until a signal ends it; the exit code. What ``python -m gateway`` and ``ws-gateway serve`` do."""
    try:
        config = load(config_path, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - nothing logs yet
        return 1
    logs.configure(config.logger.level, config.logger.format, _raw(sys.stderr))
    try:
        service = _build(config, config_path)
        service.privilegedStartService()
        service.startService()
    except GatewayError as error:
        _tell(error)
        return 1
    reactor = _reactor()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


def _build(config: Config, path: str | None) -> MultiService:
    share_the_interpreter()
    return build(config, _reactor(), time.time, path)


def _reactor() -> Any:
    from twisted.internet import reactor

    # Twisted's timers follow the wall clock: where that steps by an hour, all of them fire, or none does for an hour.
    cast("Any", reactor).seconds = time.monotonic
    return reactor


def _raw(stream: Any) -> Any:
    """A standard stream without its buffer, in which lines that cannot be written would fail the exit; nowhere, where
    the process was started with it closed."""
    return Path(os.devnull).open("wb", 0) if stream is None else io.FileIO(stream.fileno(), "w", closefd=False)


def _plainly(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """As sys.excepthook: what stops a start on purpose is a line in the log, not a stack."""
    if isinstance(error, GatewayError):
        _tell(error)
    else:
        sys.__excepthook__(kind, error, traceback)


def _tell(error: GatewayError) -> None:
    _log.critical("cannot start: {reason}", reason=str(error))

"""Reads the settings again at SIGHUP, and says what has changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..env_file import ENV_FILE
from ..errors import ConfigurationError
from ..logs import configure_logging
from ..settings import Settings

log = logging.getLogger(__name__)


class CurrentSettings:
    """The settings of a running gateway.

    Args:
        settings: What the gateway has started with.
        environ: The environment that they were read from, without the variables of ``LLMGATEWAY_ENV_FILE``. Options of
            the command line are in it as variables.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self._environ = environ

    def read_again(self, *, quiet: bool = False) -> bool:
        """Read the file again, and return whether it could be used; if not, the settings stay as they are.

        Args:
            quiet: Log nothing, because another process of this gateway says the same.
        """
        try:
            self._check_file()
            new = Settings.from_env(self._environ)
        except ConfigurationError as error:
            if not quiet:
                problems = " ".join(error.problems)
                log.error("The settings stay as they are, because the new ones are wrong: %s", problems)  # noqa: TRY400
            return False
        old, self.settings = self.settings, self.settings.reloaded(new)
        # What is not in force yet must not appear in the log, either.
        configure_logging(self.settings.log_level, [*self.settings.secrets(), *new.secrets()])
        if not quiet:
            self._report(old, new)
        return True

    def _check_file(self) -> None:
        """Refuse a pipe: it has been read to its end, and could keep the process waiting for a writer for ever."""
        path = self.settings.env_file
        if path is not None and (path.is_fifo() or path.is_char_device() or path.is_socket()):
            raise ConfigurationError([f"{ENV_FILE}: {path.absolute()} is no file on disk, and cannot be read again."])

    def _report(self, old: Settings, new: Settings) -> None:
        if not self.settings.env_file:
            log.warning("SIGHUP reads nothing again: there is no file of settings (--env-file, %s).", ENV_FILE)
            return
        # SECRET_KEY keeps what it was derived from, see Settings.reloaded(). Nobody has changed it.
        names = [name for name in self.settings.differing(old) if name != "SECRET_KEY"]
        changed = ", ".join(names) or "nothing has changed"
        # A warning, because it answers an operator's signal: it has to be seen with every usual level.
        log.warning("The settings were read again from %s: %s.", self.settings.env_file.absolute(), changed)
        waiting = new.differing(self.settings)
        if new.secret_key is None and self.settings.secret_key is not None and "SECRET_KEY" in waiting:
            waiting.remove("SECRET_KEY")
            log.warning(
                "ADMIN_KEY was replaced, and SECRET_KEY is not set: what is stored encrypted still needs the former "
                "ADMIN_KEY. Set SECRET_KEY to it before the next restart, or set Azure's key again after it."
            )
        if waiting:
            log.warning("These settings have changed, and need a restart: %s.", ", ".join(waiting))
        for warning in self.settings.warnings():
            if warning not in old.warnings():
                log.warning("%s", warning)

"""Builds without what an earlier build has left. Everything else is in setup.cfg."""

import shutil

from setuptools import setup
from setuptools.command.build import build


class CleanBuild(build):
    """Removes ``build/lib`` first.

    pip builds in the checkout, and setuptools only adds files to ``build/lib``. So after an update of the checkout,
    modules that it has no longer would be installed again (https://github.com/pypa/setuptools/issues/1347).
    """

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(cmdclass={"build": CleanBuild})

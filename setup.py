"""Puts `configs/`, which stands beside the package in a checkout, inside it where it is installed."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Builds the packages, and copies the configuration into `autoresearch/configs`."""

    def run(self) -> None:
        """Build; an editable installation finds the configuration in the checkout."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "autoresearch" / "configs"
            shutil.copytree(Path(__file__).parent / "configs", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})

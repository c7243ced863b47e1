"""What pyproject.toml cannot say: the flagfiles go into the package."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class WithFlagfiles(build_py):
    """Copies `flags/` into the package; an editable install reads them in place."""

    def run(self):
        """Build the package."""
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib, "ntk_tf", "flags")
            shutil.copytree("flags", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": WithFlagfiles})

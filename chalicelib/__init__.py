"""The app's code. In a packaged deployment the team's part of it is the function, and Postern's lies in the layer."""

import sys
from os.path import isdir, join

# The team's folder, which is this one, goes first. (pkgutil.extend_path does as much, and costs more to import.)
_folders = [join(entry or ".", __name__) for entry in sys.path]  # noqa: PTH118 -- pathlib costs more as well
__path__ += [folder for folder in _folders if folder not in __path__ and isdir(folder)]  # noqa: PTH112

"""Images and tables in the packages scikit-image and scikit-learn."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from hubmerge.errors import MachineError


def bundled_file(package: str, path: str) -> Path:
    """Return a data file inside an installed package.

    Raises:
        MachineError: the package is not installed, or its release lacks the file.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MachineError(
            f"the package {package}, whose images the demo uses, is not installed",
            hint="pip install 'hubmerge[demo]'",
        )
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise MachineError(
            f"the installed {package} has no file {path}",
            hint="pip install --upgrade scikit-image scikit-learn",
            file=str(file),
        )
    return file


@lru_cache(maxsize=64)
def bundled_photo(package: str, path: str) -> Image.Image:
    """Return a bundled image in color, its longer side at most 640 pixels."""
    with Image.open(bundled_file(package, path)) as image:
        photo = image.convert("RGB")
    photo.thumbnail((640, 640), Image.Resampling.BOX)
    return photo

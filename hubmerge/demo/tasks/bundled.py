"""Images and tables that scikit-image and scikit-learn bring along in their own packages."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from hubmerge.errors import MachineError


def bundled_file(package: str, path: str) -> Path:
    """Return a data file inside an installed package.

    Raises:
        MachineError: the package is not installed, or this release of it lacks the file.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MachineError(
            f"the demo draws on the images of {package}, which is not installed",
            hint='install what the demo needs: pip install "hubmerge[demo]"',
        )
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise MachineError(
            f"the installed {package} does not hold {path}",
            hint='install another release of it: pip install --upgrade "hubmerge[demo]"',
        )
    return file


@lru_cache(maxsize=64)
def bundled_photo(package: str, path: str) -> Image.Image:
    """Return a bundled image in color, its longer side at most 640 pixels."""
    with Image.open(bundled_file(package, path)) as image:
        photo = image.convert("RGB")
    photo.thumbnail((640, 640), Image.Resampling.BOX)
    return photo

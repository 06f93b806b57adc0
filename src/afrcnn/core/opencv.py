"""OpenCV: which of its packages is installed, for they overwrite each other."""

from __future__ import annotations

from afrcnn.core.errors import UserError

_FIX = (
    "other packages of OpenCV overwrite it: `pip uninstall -y opencv-python opencv-python-headless"
    " opencv-contrib-python opencv-contrib-python-headless`, then `pip install opencv-contrib-python-headless`"
)


def opencv_error(error: ImportError) -> UserError:
    """Return what is to be said where OpenCV cannot be imported."""
    return UserError(f"OpenCV cannot be imported ({error})", fix=_FIX)


def require_opencv() -> None:
    """Refuse an installation of OpenCV that lacks what selective search needs, or that cannot be imported.

    Raises:
        UserError: so it is; says what to install.
    """
    try:
        import cv2  # noqa: PLC0415
    except ImportError as error:
        raise opencv_error(error) from error
    if not hasattr(cv2, "ximgproc"):
        raise UserError("OpenCV has no module ximgproc, which selective search is in", fix=_FIX)

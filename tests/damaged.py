"""Images that are damaged on purpose."""

from pathlib import Path


def spoil(path: Path) -> None:
    """Leave of a JPEG its header, which has the size, and its last bytes: it looks whole, and cannot be decoded."""
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xda") + 2
    data[start:-2] = bytes(len(data) - 2 - start)
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Remove the end of an image."""
    path.write_bytes(path.read_bytes()[:-200])

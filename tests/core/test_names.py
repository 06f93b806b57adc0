"""Names of files made of other names: every one can be written, and read back."""

import pytest

from afrcnn.core.errors import UserError
from afrcnn.core.names import file_name, original_name
from afrcnn.core.terminal import printable


@pytest.mark.parametrize(
    "name", ["cat", "traffic light", "a/b", "../../etc", "100%", "%2F", "a\x1b[31mb", "a\0b", "ünï", "\ud800", "a\nb"]
)
def test_a_name_comes_back_from_its_file(name, tmp_path):
    encoded = file_name(name)
    assert original_name(encoded) == name
    (tmp_path / f"det_{encoded}.txt").write_text("x")
    assert [file.name for file in tmp_path.iterdir()] == [f"det_{encoded}.txt"]
    assert encoded.isprintable() and "/" not in encoded


def test_ordinary_names_stay_as_they_are():
    assert [file_name(name) for name in ("cat", "traffic light", "größe")] == ["cat", "traffic light", "größe"]


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="too long"):
        file_name("é" * 91)


def test_what_steers_a_terminal_is_written_out():
    assert printable("a\x1b]0;x\x07\u202eb\udc80\nc é") == "a\\x1b]0;x\\x07\\u202eb\\udc80\nc é"
    message = str(UserError("holds \x1b[2J", file="\x1b[31m.yaml", field="a\nb", fix="mend\tit"))
    assert message == "\\x1b[31m.yaml: a b: holds \\x1b[2J; mend it"

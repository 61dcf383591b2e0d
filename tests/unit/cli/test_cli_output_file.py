from __future__ import annotations

import pytest

from icae.cli.memories import check_output
from icae.errors import InputError


def test_new_file_in_a_folder_that_exists_passes(tmp_path) -> None:
    check_output(tmp_path / "new", force=False)
    assert not (tmp_path / "new").exists()


def test_existing_file_passes_only_if_it_may_be_replaced(tmp_path) -> None:
    path = tmp_path / "old"
    path.touch()
    check_output(path, force=True)
    with pytest.raises(InputError, match="exists already"):
        check_output(path, force=False)


def test_input_is_never_written_to(tmp_path) -> None:
    path = tmp_path / "same"
    path.touch()
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(InputError, match="input itself"):
        check_output(tmp_path / "link", force=True, inputs=[path])


def test_folder_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        check_output(tmp_path, force=True)


def test_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"got: +.*absent"):
        check_output(tmp_path / "absent" / "file", force=True)

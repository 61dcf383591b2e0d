import pytest

from icae.data.triplets.journal import open_journal
from icae.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.journal.jsonl"


@pytest.fixture
def fill(path, make_reply):
    def run(*texts):
        with open_journal(path) as journal:
            for text in texts:
                journal.append(make_reply(text, request=text[:1]))

    return run


def texts(path):
    with open_journal(path) as journal:
        return {name: [one.text for one in many] for name, many in journal.replies.items()}


def test_replies_are_found_again_in_their_order(path, fill):
    assert texts(path) == {}
    fill("a1", "b1\nwith \ud83d line\u2028ends")
    fill("a2")
    assert texts(path) == {"a": ["a1", "a2"], "b": ["b1\nwith \ud83d line\u2028ends"]}


def test_journal_cut_at_any_byte_loses_the_last_line_only(path, fill):
    fill("a1")
    whole = path.read_bytes()
    for size in (*range(0, len(whole), 7), len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        fill("b1")
        kept = {"a": ["a1"]} if size == len(whole) else {}
        assert texts(path) == {**kept, "b": ["b1"]}


def test_append_has_synced_the_line_before_it_returns(path, make_reply, monkeypatch):
    synced = []
    with open_journal(path) as journal:
        monkeypatch.setattr("os.fsync", lambda fd: synced.append(path.stat().st_size))
        journal.append(make_reply("a1"))
        assert synced == [path.stat().st_size]


def test_damage_before_the_last_line_is_reported_with_its_line(path, fill):
    fill("a1", "b1")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:-9], *lines[2:]]))
    with pytest.raises(InputError, match="line 2") as caught, open_journal(path):
        pass
    assert path.read_bytes().count(b"\n") == 3, "nothing is lost"
    assert caught.value.fix is not None


def test_foreign_file_is_refused_and_stays(path):
    path.write_text("my notes\n")
    with pytest.raises(InputError, match="no header"), open_journal(path):
        pass
    assert path.read_text() == "my notes\n"


def test_second_process_is_kept_out(path):
    with open_journal(path), pytest.raises(InputError, match="in use"), open_journal(path):
        pass

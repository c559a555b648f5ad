"""Names and files by the million are those of lists of paths, in a fraction of their memory."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from gan_nst.data.domains import Files, Names

TEXTS = ["a.png", "", "ä/b c.png", "bad-\udcff.png", "a.png", "新.jpg\n"]


def test_names_are_the_texts_that_were_given():
    names = Names(TEXTS)
    assert list(names) == TEXTS
    assert len(names) == 6
    assert names[-1] == TEXTS[-1]
    assert list(names[1:4]) == TEXTS[1:4]
    assert list(names.select(np.array([5, 0, 0]))) == [TEXTS[5], TEXTS[0], TEXTS[0]]
    assert list(names.select(np.array([True, False] * 3))) == TEXTS[::2]
    assert "新.jpg\n" in names
    with pytest.raises(IndexError):
        names[6]
    assert list(Names()) == []


def test_equal_names_are_equal_however_they_came():
    assert Names(TEXTS) == Names(["x", *TEXTS])[1:]
    assert Names(TEXTS) != Names(TEXTS[:-1])
    assert Names(["ab", "c"]) != Names(["a", "bc"])
    assert Names(["a"]) != ["a"]


@pytest.mark.parametrize("texts", [[], TEXTS, TEXTS[:1]])
def test_names_survive_as_letters_and_ends(texts):
    names = Names(["first", *texts])[1:]
    letters, ends = names.joined()
    assert list(Names.of_letters(letters, ends)) == texts
    assert list(pickle.loads(pickle.dumps(names))) == texts


@pytest.mark.parametrize("ends", [[2], [4], [2, 1, 3], [-1, 3], [3, 2], []])
def test_ends_that_lie_are_refused(ends):
    with pytest.raises(ValueError, match="the ends do not fit"):
        Names.of_letters(b"abc", np.array(ends, np.int64))


def test_names_are_found_among_others():
    names = Names(["c", "a", "\udc80", "b"])
    assert names.find(Names(["b", "x", "a", "\udc80", "b"])).tolist() == [3, -1, 1, 2, 3]
    assert names.find(Names()).tolist() == []
    assert Names().find(names).tolist() == [-1] * 4


def test_names_of_the_same_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr("builtins.hash", lambda text: 7)
    assert Names(["b"]).find(Names(["a", "b"])).tolist() == [-1, 0]


def test_files_are_paths_below_their_folder(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "d" / "b.png"]
    files = Files.of(tmp_path, paths)
    assert list(files) == paths
    assert files[np.int64(1)] == paths[1]
    assert list(files[1:]) == list(files.select(np.array([1]))) == paths[1:]
    assert files == Files.of(tmp_path, paths) != Files.of(Path("/"), paths)
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert Files.found(tmp_path) == files

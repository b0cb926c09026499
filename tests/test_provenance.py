"""Digests depend on content alone; files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat

import numpy as np
import pytest

from beamseg.errors import InputError
from beamseg.provenance import atomic_path, digest, file_digest, identity, read_json, write_json


def test_digest_ignores_order_of_keys_and_numpy_types():
    assert digest({"a": 1, "b": [2.5, "x"]}) == digest({"b": [*np.array([2.5]).tolist(), "x"], "a": np.int64(1)})
    assert digest({"a": 1}) != digest({"a": 2})


def test_identity_follows_settings_and_file_content_not_names_or_times(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_json(one, {"x": 1})
    write_json(two, {"x": 1})
    first = identity("segment", {"tile": 128}, {"scan": one})
    assert identity("segment", {"tile": 128}, {"scan": two}) == first
    assert identity("segment", {"tile": 64}, {"scan": one}) != first
    write_json(two, {"x": 2})
    assert identity("segment", {"tile": 128}, {"scan": two}) != first


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"x": 1})

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_nan_is_refused_in_results(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "metrics.json", {"iou": float("nan")})


def write_and_fail(path, number):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))


def test_a_full_disk_is_said_in_words_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="No space left on device"):
        write_and_fail(tmp_path / "a.json", errno.ENOSPC)
    with pytest.raises(FileNotFoundError):
        write_and_fail(tmp_path / "a.json", errno.ENOENT)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_renames_is_said_in_words(tmp_path, monkeypatch):
    def refuse(old, new):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match="a file system that does not rename files"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_synchronize_a_folder_is_no_error(tmp_path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1}


def test_a_folder_s_digest_is_that_of_its_files(tmp_path):
    (tmp_path / "b").write_text("2")
    (tmp_path / "a").write_text("1")
    first = file_digest(tmp_path)
    assert file_digest(tmp_path) == first
    (tmp_path / "b").write_text("3")
    changed = file_digest(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    assert len({first, changed, file_digest(tmp_path)}) == 3

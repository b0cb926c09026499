"""The archive of a group: what is in it, that its list of files is true, and that its bytes depend on nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from beamseg.archive import archive
from beamseg.cli import BASEDIR, main
from beamseg.errors import InputError
from handed_on import finished_group


def test_it_holds_what_a_publication_needs(tmp_path: Path) -> None:
    finished_group(tmp_path, ("mrc", "ome_zarr", "nexus_virtual"))
    (tmp_path / "results" / "groups" / "a" / "methods.md").write_text("# Methods\n")
    out = archive(tmp_path, BASEDIR, "a")
    assert out == tmp_path / "results" / "groups" / "a" / "archive.zip"
    with zipfile.ZipFile(out) as file:
        assert file.testzip() is None
        names = set(file.namelist())
        assert {"README.md", "methods.md", "config/a.yaml", "a/provenance.json", "a/labels.json"} <= names
        assert {"bundle/bundle.json", "bundle/model.safetensors", "bundle/arrays.safetensors"} <= names
        assert {"a/labels_virtual.h5", "a/labels_virtual/slab_000000.h5"} <= names
        assert {"a/labels.mrc", "a/labels.ome.zarr/.zattrs", "a/labels.ome.zarr/0/0/0/0", "a/metrics.json"} <= names
        assert file.read("a/labels.mrc") == (tmp_path / "results" / "a" / "labels.mrc").read_bytes()
        config = yaml.safe_load(file.read("config/a.yaml"))
        text = b"".join(file.read(name) for name in names)
    assert (config["path"], config["truth"], config["pseudo_label"]["n_clusters"]) == ("scan.tif", "truth.tif", 2)
    assert str(tmp_path).encode() not in text
    assert b"secret" not in text


def test_the_readme_lists_every_file_with_its_sum(tmp_path: Path) -> None:
    finished_group(tmp_path)
    with zipfile.ZipFile(archive(tmp_path, BASEDIR, "a")) as file:
        readme = file.read("README.md").decode()
        listed = dict(line[::-1] for line in re.findall(r"^([0-9a-f]{64})  (.+)$", readme, flags=re.MULTILINE))
        assert listed == {
            name: hashlib.sha256(file.read(name)).hexdigest() for name in file.namelist() if name != "README.md"
        }
    assert "| 0 | pores | #112233 |" in readme


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    finished_group(tmp_path)
    first = archive(tmp_path, BASEDIR, "a").read_bytes()
    later = time.time() + 5000
    for path in (tmp_path / "results").rglob("*"):
        os.utime(path, (later, later))
    assert archive(tmp_path, BASEDIR, "a").read_bytes() == first


def test_an_unfinished_or_unknown_group_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_group(tmp_path)
    with pytest.raises(InputError, match="one of a"):
        archive(tmp_path, BASEDIR, "b")
    (tmp_path / "results" / "a" / "labels.json").unlink()
    assert main(["--directory", str(tmp_path), "archive", "a"]) == 1
    assert "run the workflow first" in capsys.readouterr().err
    assert not (tmp_path / "results" / "groups" / "a" / "archive.zip").exists()

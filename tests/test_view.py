"""What napari is given: the scan, the exported labels in place, names and colours."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from beamseg.cli import BASEDIR, main
from beamseg.errors import InputError
from beamseg.view import layers
from handed_on import SIZE, finished_group


@pytest.mark.parametrize("formats", [("tiff",), ("mrc", "ply"), ("ome_zarr", "nexus")])
def test_scan_and_labels_lie_on_each_other(tmp_path: Path, formats: tuple[str, ...]) -> None:
    scan, labels = finished_group(tmp_path, formats)
    image, shown = layers(tmp_path, BASEDIR, "a")
    for (kind, data, options), name, array in ((image, "image", scan), (shown, "labels", labels)):
        assert kind == name
        assert data.dtype == array.dtype
        np.testing.assert_array_equal(data[3].compute(), array[3])
        np.testing.assert_array_equal(data[:, 2:4, 5].compute(), array[:, 2:4, 5])
        assert (options["scale"], options["units"]) == (SIZE, ["um"] * 3)
    assert image[2]["contrast_limits"] == [1.0, 90.0]
    options = shown[2]
    assert options["features"].to_dict("list") == {"index": [0, 1, 255], "class": ["pores", "cluster 1", "outside"]}
    assert options["colormap"][0] == "#112233"
    assert options["colormap"][255] == (0.0, 0.0, 0.0, 0.0)


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_group(tmp_path, ("stl",))
    with pytest.raises(InputError, match="add tiff to"):
        layers(tmp_path, BASEDIR, "a")
    with pytest.raises(InputError, match="see the sample table"):
        layers(tmp_path, BASEDIR, "b")
    (tmp_path / "results" / "a" / "labels.json").unlink()
    assert main(["--directory", str(tmp_path), "view", "a"]) == 1
    assert "run the workflow first" in capsys.readouterr().err


def test_without_napari_the_line_that_installs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_group(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--directory", str(tmp_path), "view", "a"]) == 1
    assert 'python -m pip install "napari[all]"' in capsys.readouterr().err


def test_layers_are_added_in_order_and_napari_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_group(tmp_path)
    calls: list[Any] = []
    napari: Any = ModuleType("napari")
    napari.__spec__ = importlib.machinery.ModuleSpec("napari", None)
    napari.Viewer = lambda title: SimpleNamespace(
        add_image=lambda data, **options: calls.append(("image", options["name"])),
        add_labels=lambda data, **options: calls.append(("labels", options["name"])),
        scale_bar=SimpleNamespace(visible=False),
    )
    napari.run = lambda: calls.append("run")
    monkeypatch.setitem(sys.modules, "napari", napari)
    assert main(["--directory", str(tmp_path), "view", "a"]) == 0
    assert calls == [("image", "a"), ("labels", "a: scm"), "run"]

"""Slabs: borders, parts, resume, digests, and readers that refuse what is missing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamseg import slabs
from beamseg.errors import InputError
from beamseg.slabs import SlabVolume, run_slabs, slab_borders


@given(st.integers(1, 500), st.integers(1, 300))
def test_borders_cover_every_slice_once_and_start_at_multiples_of_8(n_slices, depth):
    borders = slab_borders(n_slices, depth)
    assert [z for z0, z1 in borders for z in range(z0, z1)] == list(range(n_slices))
    assert all(z0 % 8 == 0 for z0, _ in borders)
    assert all(z1 - z0 >= 8 for z0, z1 in borders) or n_slices < 8


def test_volume_under_16_slices_is_one_slab():
    assert slab_borders(15, 8) == [(0, 15)]
    assert slab_borders(16, 8) == [(0, 8), (8, 16)]


def make(folder, array, depth, part="1-of-1", identity="a", calls=None):
    def fill(z0, z1, writer):
        if calls is not None:
            calls.append(z0)
        for z in range(z0, z1, 3):
            writer.put("labels", z, array[z : min(z + 3, z1)])
        writer.notes["sum"] = int(array[z0:z1].sum())

    return run_slabs(
        folder / f"{part}.json",
        stage="test",
        identity=identity,
        shape=array.shape,
        depth=depth,
        dtypes={"labels": np.uint8},
        fill=fill,
        part=part,
    )


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 5, (37, 20, 30), dtype=np.uint8)


@pytest.mark.parametrize("depth", [8, 16, 24, 40])
@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_any_depth_and_number_of_parts_gives_the_whole(tmp_path, array, depth, parts):
    names = [f"{k + 1}-of-{parts}" for k in range(parts)]
    for name in names:
        make(tmp_path, array, depth, name)
    volume = SlabVolume([tmp_path / f"{name}.json" for name in names], "labels")
    np.testing.assert_array_equal(volume.read(0, 37), array)
    np.testing.assert_array_equal(volume.read(5, 29, slice(3, 9), slice(7, 8)), array[5:29, 3:9, 7:8])


def test_finished_slabs_of_the_same_identity_are_kept(tmp_path, array):
    calls = []
    first = make(tmp_path, array, 8, calls=calls)
    assert calls == [0, 8, 16, 24]
    (tmp_path / "1-of-1.json").unlink()
    (tmp_path / "slab_000016.h5").unlink()
    again = make(tmp_path, array, 8, calls=calls)
    assert calls[4:] == [16]
    assert again == first


def test_another_identity_or_depth_computes_anew(tmp_path, array):
    calls = []
    make(tmp_path, array, 8, calls=calls)
    make(tmp_path, array, 8, identity="b", calls=calls)
    assert len(calls) == 8
    make(tmp_path, array, 16, identity="b", calls=calls)
    assert calls[8:] == [0, 16]


def test_a_slab_that_fails_leaves_no_file(tmp_path, array):
    def fill(z0, z1, writer):
        writer.put("labels", z0, array[z0 : z0 + 1])
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        run_slabs(
            tmp_path / "1-of-1.json",
            stage="test",
            identity="a",
            shape=array.shape,
            depth=8,
            dtypes={"labels": np.uint8},
            fill=fill,
        )
    assert list(tmp_path.iterdir()) == []


def test_slices_out_of_order_or_missing_are_refused(tmp_path, array):
    def run(fill):
        run_slabs(
            tmp_path / "1-of-1.json",
            stage="test",
            identity="a",
            shape=array.shape,
            depth=64,
            dtypes={"labels": np.uint8},
            fill=fill,
        )

    with pytest.raises(ValueError, match="slice 1 came, slice 0 was due"):
        run(lambda z0, z1, writer: writer.put("labels", 1, array[1:2]))
    with pytest.raises(ValueError, match="ends at slice 2, not at 37"):
        run(lambda z0, z1, writer: writer.put("labels", 0, array[:2]))


def test_missing_slab_is_an_error_that_names_it(tmp_path, array):
    make(tmp_path, array, 8)
    (tmp_path / "slab_000008.h5").unlink()
    with pytest.raises(InputError, match=r"slab_000008.h5") as caught:
        SlabVolume([tmp_path / "1-of-1.json"], "labels")
    assert "rerun the stage" in caught.value.remedy


def test_missing_part_is_an_error(tmp_path, array):
    make(tmp_path, array, 8, "1-of-2")
    make(tmp_path, array, 8, "2-of-2")
    with pytest.raises(InputError, match="slabs up to slice 8"):
        SlabVolume([tmp_path / "1-of-2.json"], "labels")


def test_half_written_file_under_the_final_name_is_computed_again(tmp_path, array):
    make(tmp_path, array, 64)
    path = tmp_path / "slab_000000.h5"
    path.write_bytes(path.read_bytes()[:100])
    make(tmp_path, array, 64)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["labels"][:], array)


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from beamseg.errors import InputError
from beamseg.slabs import run_slabs

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
noise = np.random.default_rng(0).integers(0, 65535, (8, 128, 128)).astype(np.uint16)

def fill(z0, z1, writer):
    for z in range(z0, z1, 8):
        writer.put("grey", z, noise)

try:
    run_slabs(Path(sys.argv[1]), stage="s", identity="i", shape=(32, 128, 128), depth=32,
              dtypes={"grey": np.uint16}, fill=fill)
except InputError as error:
    print(error)
"""


def test_a_disk_that_fills_up_ends_in_words_and_leaves_no_file(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(slabs.__file__).parents[1])}
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "stage" / "1-of-1.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(slabs.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    arguments = {"stage": "s", "identity": "i", "shape": (16, 40, 40), "depth": 16, "dtypes": {"grey": np.uint16}}
    with pytest.raises(InputError, match=r"1e-06 GB free, and about 3\.84e-05 GB to write"):
        run_slabs(tmp_path / "s" / "1-of-1.json", fill=lambda *_: pytest.fail("computed"), **arguments)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Not a directory|File exists"):
        run_slabs(tmp_path / "file" / "1-of-1.json", fill=lambda *_: pytest.fail("computed"), **arguments)


READ_WHERE_LOCKED = """
import sys
from beamseg.slabs import SlabVolume
print(SlabVolume([sys.argv[1]], "labels").read(0, 1000).sum(dtype=int))
"""


def test_where_locks_are_refused_slabs_are_read_all_the_same(tmp_path, array):
    """A lock that somebody else holds stands for one that a network file system refuses."""
    make(tmp_path, array, 8)
    env = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    env["PYTHONPATH"] = str(Path(slabs.__file__).parents[1])
    with contextlib.ExitStack() as held:
        for path in tmp_path.glob("slab_*.h5"):
            fcntl.flock(held.enter_context(open(path)), fcntl.LOCK_EX)
        command = [sys.executable, "-c", READ_WHERE_LOCKED, str(tmp_path / "1-of-1.json")]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        asked = subprocess.run(command, capture_output=True, text=True, env={**env, "HDF5_USE_FILE_LOCKING": "TRUE"})
    assert "unable to lock file" in asked.stderr
    assert (done.stdout.strip(), done.stderr) == (str(array.sum(dtype=int)), "")


def test_chunks_share_a_slice_evenly():
    assert slabs.even_chunks((128, 2048, 300)) == (8, 256, 150)
    assert slabs.even_chunks((3, 257, 9)) == (3, 129, 9)
    assert slabs.even_chunks((128, 11_000, 11_000)) == (2, 256, 256)


@settings(max_examples=30, deadline=None)
@given(blocks=st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_a_slab_in_blocks_is_the_slab_at_once(tmp_path_factory, blocks):
    """Also where a caller uses the memory of its block again."""
    volume = np.random.default_rng(sum(blocks)).integers(0, 9, (sum(blocks), 5, 7)).astype(np.uint8)
    with h5py.File(tmp_path_factory.mktemp("slab") / "s.h5", "w") as file:
        for name, options in slabs.slab_arrays({"labels": np.uint8, "votes": np.uint8}, volume.shape).items():
            file.create_dataset(name, **options)
        writer, z = slabs.SlabWriter(file, 100), 0
        for size in blocks:
            block = volume[z : z + size].copy()
            writer.put("labels", 100 + z, block)
            block[:] = 77
            z += size
        writer.put("votes", 100, volume)
        digests = writer.finish(100 + z)
        assert np.array_equal(file["labels"], volume)
        assert np.array_equal(file["votes"], volume)
    assert digests["labels"] == digests["votes"]


def test_a_chunk_is_written_once(tmp_path, array):
    """Slices that come one by one make no more work than the slab at once."""
    written = []

    class Counted(slabs.RecordedFile):
        def write(self, data):
            written.append(len(data))
            return super().write(data)

    sizes = []
    for step in (1, len(array)):
        written.clear()
        with Counted(tmp_path / f"{step}.h5") as raw, h5py.File(raw, "w") as file:
            options = slabs.slab_arrays({"labels": np.uint8}, array.shape)["labels"]
            file.create_dataset("labels", **options)
            writer = slabs.SlabWriter(file, 0)
            for z in range(0, len(array), step):
                writer.put("labels", z, array[z : z + step].astype(np.uint8))
        sizes.append(sum(written))
    assert sizes[0] == sizes[1]


def test_noise_takes_no_more_than_the_most(tmp_path):
    noise = np.random.default_rng(0).integers(0, 65536, (16, 300, 300)).astype(np.uint16)
    options = slabs.slab_arrays({"grey": np.uint16}, noise.shape)["grey"]
    with h5py.File(tmp_path / "noise.h5", "w") as file:
        file.create_dataset("grey", data=noise, **options)
    most = slabs.most_bytes({"grey": np.uint16}, noise.size)
    assert noise.nbytes < (tmp_path / "noise.h5").stat().st_size < most


def test_forecast_of_bytes_by_hand():
    assert slabs.stored_bytes({"grey": "uint16"}, 1000) == 1500
    assert slabs.stored_bytes({"labels": "uint8", "confidence": "uint8"}, 1000) == 450

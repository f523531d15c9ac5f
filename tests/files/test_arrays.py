"""Arrays of somebody else: numbers are read, everything else is one error, and nothing is allocated for a promise."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hostile import NPY, Hostile

from vsehub.files.arrays import read_array


@pytest.mark.parametrize("values", [np.arange(5), np.zeros(0, np.int64), np.arange(3, dtype=np.uint8)])
def test_numbers_are_read(values, tmp_path):
    np.save(tmp_path / "a.npy", values)
    assert np.array_equal(read_array(tmp_path / "a.npy", "integer", 1), values)


def test_a_matrix_is_read_and_must_be_of_its_kind(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3, dtype=np.float32))
    assert np.array_equal(read_array(tmp_path / "a.npy", "float32", 2), np.eye(3))
    for kind, axes in (("integer", 2), ("float64", 2), ("float32", 1)):
        with pytest.raises(ValueError, match="an array of float32 with 2 axes"):
            read_array(tmp_path / "a.npy", kind, axes)


@pytest.mark.parametrize("kind", NPY)
def test_what_is_no_array_of_numbers_is_one_line(kind, tmp_path):
    (tmp_path / "a.npy").write_bytes(NPY[kind](tmp_path / "witness"))
    tracemalloc.start()
    with pytest.raises(ValueError, match="a.npy: ") as refused:
        read_array(tmp_path / "a.npy", "float32", 2)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000 and "\n" not in str(refused.value)
    tracemalloc.stop()
    assert "allow_pickle=True" not in str(refused.value) and not (tmp_path / "witness").exists()


def test_a_pickle_and_an_archive_are_not_arrays(tmp_path):
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Hostile(tmp_path / "witness")))
    with pytest.raises(ValueError, match="does not begin as an array"):
        read_array(tmp_path / "a.npy", "integer", 1)
    np.savez(tmp_path / "a.npz", np.arange(3))
    with pytest.raises(ValueError, match="does not begin as an array"):
        read_array(tmp_path / "a.npz", "integer", 1)
    assert not (tmp_path / "witness").exists()
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "absent.npy", "integer", 1)

"""Files, directories and frames travel as references, and read the same wherever they are opened."""

from __future__ import annotations

import copy
import gc
import hashlib
import importlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

from flyteish._authoring.tasks.signature import TaskSignature
from flyteish._authoring.values.codec import Codec, PicklePolicy, PickleWarning, current_pickle_policy
from flyteish._authoring.values.current_blobs import INLINE_LIMIT, current_blobs
from flyteish.blobs.addresses import mentioned
from flyteish.blobs.files import BlockingFileBlobs
from flyteish.errors import InputTypeError, SerializationError
from flyteish.io import DataFrame, Dir, File


class Blobs(BlockingFileBlobs):
    """A store that remembers what was fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []

    def fetch(self, address: str, target: Path) -> Path:
        self.fetched.append(address)
        return super().fetch(address, target)


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Blobs]:
    store = Blobs(tmp_path / "blobs")
    token = current_blobs.set(store)
    yield store
    current_blobs.reset(token)


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_text("one\ntwo\n")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt", "deep/er/d.txt"):
        (root / name).write_text(name)
    return root


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch copies go, so that tests see whether any are left."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def trip(value: Any) -> Any:
    codec = Codec("shop.fill()")
    return codec.decode(codec.encode(value))


def text_of(path: str | Path) -> str:
    return Path(path).read_text()


def name_of(path: str) -> str:
    return Path(path).name


# -- files -----------------------------------------------------------------------------------------


async def test_a_file_travels_as_a_reference(blobs: Blobs, note: Path) -> None:
    """Address, name and size; the content is read where it is opened."""
    file = await File.from_local(note)
    data = Codec().encode({"file": file})
    assert mentioned(data) == {file.path}
    assert file.path.startswith("sha256:")
    assert b"one" not in data
    os.unlink(note)
    arrived: File[Any] = Codec().decode(data)["file"]
    assert (arrived, arrived.name, arrived.size) == (file, "note.txt", 8)
    async with arrived.open("rb") as handle:
        assert await handle.read() == b"one\ntwo\n"
    async with arrived.open("r", encoding="utf-8") as handle:
        assert await handle.readline() == "one\n"
        assert [line async for line in handle] == ["two\n"]
    with arrived.open_sync("r") as handle:
        assert handle.read(3) == "one"


async def test_scratch_copies_do_not_stay(blobs: Blobs, note: Path, temporary: Path) -> None:
    """What was fetched to be read is removed, also after an error."""
    file = trip(File.from_local_sync(note))

    async def fails_while_reading() -> None:
        async with file.open() as handle:
            await handle.read()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails_while_reading()
    gc.collect()
    assert os.listdir(temporary) == []


async def test_a_file_is_downloaded_to_a_path_a_directory_or_a_new_place(
    blobs: Blobs, note: Path, tmp_path: Path
) -> None:
    """Parents are made, an existing file is replaced."""
    file = trip(await File.from_local(note))
    target = tmp_path / "out" / "copy.txt"
    assert await file.download(target) == str(target)
    os.truncate(target, 0)
    assert file.download_sync(target) == str(target)
    assert text_of(target) == "one\ntwo\n"
    assert await file.download(tmp_path / "out") == str(tmp_path / "out" / "note.txt")
    assert await file.download(f"{tmp_path}/new{os.sep}") == str(tmp_path / "new" / "note.txt")
    somewhere = await file.download()
    assert (name_of(somewhere), text_of(somewhere)) == ("note.txt", "one\ntwo\n")
    assert sorted(os.listdir(tmp_path / "out")) == ["copy.txt", "note.txt"]


async def test_a_file_can_be_written(blobs: Blobs) -> None:
    """It is stored when the block ends, and not when it fails."""
    file = File.new_remote("out.csv")
    async with file.open("wb") as handle:
        await handle.write(b"1,2")
        assert await handle.tell() == 3
    assert (file.name, file.size, file.path[:7]) == ("out.csv", 3, "sha256:")
    first = file.path

    def fails_while_writing() -> None:
        with file.open_sync("w") as raw:
            raw.write("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails_while_writing()
    assert file.path == first
    with trip(file).open_sync() as raw:
        assert raw.read() == b"1,2"
    with pytest.raises(SerializationError, match=r"parameter|nothing was written"):
        Codec().encode(File.new_remote("never"))
    with pytest.raises(ValueError, match="mode 'ab'"), file.open_sync("ab"):
        pass


async def test_without_a_session_content_is_stored_when_it_first_travels(
    blobs: Blobs, note: Path, temporary: Path
) -> None:
    """A script makes its inputs before it starts anything."""
    token = current_blobs.set(None)
    local = await File.from_local(note)
    written = File.new_remote("out")
    with written.open_sync("w") as raw:
        raw.write("new")
    assert local.path == str(note)
    async with local.open() as handle:
        assert await handle.read() == b"one\ntwo\n"
    with pytest.raises(SerializationError, match=r"the value cannot be serialised: .*no session is open here"):
        Codec().encode([local])
    current_blobs.reset(token)
    arrived = trip([local, written])
    assert arrived[0].path == local.path == f"sha256:{hashlib.sha256(text_of(note).encode()).hexdigest()}"
    with arrived[1].open_sync("r") as raw:
        assert raw.read() == "new"
    assert len(blobs.fetched) == 1
    gc.collect()
    assert os.listdir(temporary) == []


def test_a_result_can_be_read_after_the_session(blobs: Blobs, note: Path) -> None:
    """A reference remembers the store that it was read from."""
    arrived = trip(File.from_local_sync(note))
    token = current_blobs.set(None)
    assert Path(arrived.download_sync()).read_text() == "one\ntwo\n"
    with pytest.raises(SerializationError, match="no session is open here"):
        File(path=arrived.path).download_sync()
    current_blobs.reset(token)


async def test_existing_files_are_referred_to_not_copied(blobs: Blobs, note: Path) -> None:
    """On a mounted path, or in somebody else's storage."""
    file = File.from_existing_remote(str(note))
    assert trip(file).path == str(note)
    assert await file.exists()
    assert await file.download() == str(note)
    assert not File.from_existing_remote("/no/such/file").exists_sync()
    assert not File.new_remote("x").exists_sync()
    assert trip(File.from_local_sync(note)).exists_sync()
    assert [each.name for each in blobs.contents()] == [File.from_local_sync(note).path]


async def test_remote_files_are_read_through_fsspec(note: Path, tmp_path: Path) -> None:
    """Any address that fsspec knows."""
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/shelf/a.txt", b"remote")
    file = File.from_existing_remote("memory://shelf/a.txt")
    assert (await file.exists(), file.name) == (True, "a.txt")
    async with file.open() as handle:
        assert await handle.read() == b"remote"
    assert text_of(await file.download(tmp_path / "here")) == "remote"


def test_equal_files_are_equal_inputs(blobs: Blobs, note: Path, tmp_path: Path) -> None:
    """Identity is content and name, not where it came from."""
    other = tmp_path / "elsewhere" / "note.txt"
    other.parent.mkdir()
    other.write_text("one\ntwo\n")
    assert Codec().encode(File.from_local_sync(note)) == Codec().encode(File.from_local_sync(other))
    other.write_text("three")
    assert Codec().encode(File.from_local_sync(note)) != Codec().encode(File.from_local_sync(other))


def test_files_are_checked_like_other_types(blobs: Blobs, note: Path, tree: Path) -> None:
    """A path is not a File, a File is not a Dir, and a directory makes no File."""

    def fit(x: File[str], y: Dir[Any] | None = None) -> None: ...

    sig = TaskSignature.of(fit, "train.fit")
    (arrived,) = sig.decode_inputs(sig.encode_inputs((File.from_local_sync(note),), {}))[0][:1]
    assert arrived.name == "note.txt"
    with pytest.raises(InputTypeError, match=r"'x' expects flyteish\.File\[str\], got PosixPath|str"):
        sig.encode_inputs((note,), {})
    with pytest.raises(IsADirectoryError, match=r"flyteish\.io\.Dir takes directories"):
        File.from_local_sync(tree)
    with pytest.raises(NotADirectoryError, match=r"flyteish\.io\.File takes files"):
        Dir.from_local_sync(note)
    with pytest.raises(FileNotFoundError, match="no such path: /no/such"):
        File.from_local_sync("/no/such")


def test_files_inside_models_copies_and_pickles(blobs: Blobs, note: Path) -> None:
    """They are references there too."""

    class Inputs(pydantic.BaseModel):
        file: File[Any]

    file = File.from_local_sync(note)
    sig = TaskSignature.of(lambda x: x, "a.b", {"Inputs": Inputs})
    inputs = Inputs(file=file)
    with pytest.warns(PickleWarning):  # the class is local; the file in it still is a reference
        data = sig.encode_inputs((inputs,), {})
    assert mentioned(data) == {file.path}
    assert copy.copy(file) == copy.deepcopy(file) == pickle.loads(pickle.dumps(file)) == file
    with pytest.raises(pydantic.ValidationError):
        Inputs(file=str(note))


# -- directories -----------------------------------------------------------------------------------


async def test_a_directory_travels_as_a_reference(blobs: Blobs, tree: Path, tmp_path: Path) -> None:
    """Walked, listed, looked into and downloaded, empty directories included."""
    directory = trip(await Dir.from_local(tree))
    shutil.rmtree(tree)
    assert (directory.name, directory.size) == ("tree", 33)
    names = [file.name async for file in directory.walk()]
    assert names == ["a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt"]
    assert [file.name for file in directory.walk_sync(max_depth=2)] == names[:3]
    assert [file.name for file in await directory.list_files()] == names[:2]
    target = await directory.download(tmp_path / "copy")
    assert sorted(os.listdir(target)) == ["a.txt", "b.txt", "deep", "empty"]
    assert text_of(f"{target}/deep/er/d.txt") == "deep/er/d.txt"
    with pytest.raises(FileExistsError, match="a directory with something in it"):
        directory.download_sync(target)


async def test_a_file_of_a_directory_outlives_it(blobs: Blobs, tree: Path, temporary: Path) -> None:
    """It can be read, and returned from a task, when the directory's copy is no longer referred to."""
    directory = trip(Dir.from_local_sync(tree))
    file = await directory.get_file("deep/c.txt")
    assert await directory.get_file("nothing") is None
    assert await directory.get_file("../blobs") is None
    assert len(blobs.fetched) == 1
    del directory
    gc.collect()
    with file.open_sync("r") as handle:
        assert handle.read() == "deep/c.txt"
    assert name_of(trip(file).download_sync()) == "c.txt"


async def test_a_directory_without_a_session(blobs: Blobs, tree: Path) -> None:
    """It is walked where it is, and stored when it travels; its files can travel alone."""
    token = current_blobs.set(None)
    directory = Dir.from_local_sync(tree)
    (first, *_) = [file async for file in directory.walk()]
    current_blobs.reset(token)
    assert trip(first).path.startswith("sha256:")
    assert trip(directory).path.startswith("tree:")
    existing = Dir.from_existing_remote(str(tree))
    assert trip(existing.get_file_sync("a.txt")).path == str(tree / "a.txt")


# -- frames ----------------------------------------------------------------------------------------


def pandas_frames() -> list[Any]:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    days = pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin")
    return [
        pd.DataFrame({"a": [1, 2, 3], "b": [1.5, None, float("inf")], "c": ["x", "y", None]}),
        pd.DataFrame({"t": days, "k": pd.Categorical(["u", "v", "u"])}, index=days),
        pd.DataFrame({"n": pd.array([1, None, 3], dtype="Int64")}, index=[5, 7, 9]),
        pd.DataFrame({("a", 1): [1], ("b", 2): [2]}),
        pd.DataFrame({"m": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["i", None])),
        pd.DataFrame(),
        pd.Series([1, 2], name="s"),
        pd.Series([1.0], name=("odd", 1), index=["r"]),
    ]


@pytest.mark.parametrize("number", range(8))
def test_pandas_frames_arrive_exactly(number: int) -> None:
    """Dtypes, index, labels and order; as one's own copy that can be written to."""
    pd = importlib.import_module("pandas") if (frames := pandas_frames()) else None
    assert pd is not None
    frame = frames[number]
    token = current_pickle_policy.set(PicklePolicy(notice=lambda _: None))
    arrived = trip({"df": frame})["df"]
    current_pickle_policy.reset(token)
    check = pd.testing.assert_series_equal if isinstance(frame, pd.Series) else pd.testing.assert_frame_equal
    check(arrived, frame, check_exact=True, check_freq=True)
    if number == 0:
        arrived.loc[0, "b"] = 7.0
        arrived["b"].to_numpy(copy=True)[0] = 1


def test_frames_that_arrow_would_change_go_by_pickle() -> None:
    """Lists in a column would come back as arrays; they come back as lists."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"o": [[1, 2], (3,), {"a": 1}]})
    with pytest.warns(PickleWarning, match="DataFrame travels by cloudpickle"):
        arrived = trip(frame)
    assert [type(item) for item in arrived["o"]] == [list, tuple, dict]


def test_arrow_and_polars_frames_arrive_exactly() -> None:
    """Each as its own class."""
    pa = pytest.importorskip("pyarrow")
    pl = pytest.importorskip("polars")
    table = pa.table({"a": [1, None], "s": ["x", "y"], "l": [[1], [2, 3]]})
    for value in (table, table.to_batches()[0]):
        arrived = trip(value)
        assert type(arrived) is type(value)
        assert arrived.equals(value)
    frame = pl.DataFrame({"a": [1, None], "c": ["x", "y"]}, schema_overrides={"c": pl.Categorical})
    assert trip(frame).equals(frame)
    assert trip(frame).schema == frame.schema
    assert trip(frame["a"]).equals(frame["a"], check_names=True, check_dtypes=True)


async def test_a_wrapped_frame_is_read_as_any_library_s(blobs: Blobs) -> None:
    """``DataFrame`` lets the reader choose, and stores large content once."""
    pd = pytest.importorskip("pandas")
    pa = pytest.importorskip("pyarrow")
    pl = pytest.importorskip("polars")
    frame = pd.DataFrame({"a": np.arange(INLINE_LIMIT)})
    wrapped = DataFrame.from_df(frame)
    assert wrapped.val is frame
    arrived = trip(wrapped)
    token = current_blobs.set(None)  # the session is over
    assert (await arrived.all()).equals(frame)
    assert arrived.open(pa.Table).all_sync().column("a").to_pylist()[:2] == [0, 1]
    assert (await arrived.open(pl.DataFrame).all()).height == INLINE_LIMIT
    current_blobs.reset(token)
    assert len(list(blobs.contents())) == 1
    assert (await trip(await DataFrame.from_local(pl.DataFrame({"x": [1]}))).open(pd.DataFrame).all())["x"][0] == 1


def test_existing_frames_are_read_by_the_library_asked_for(tmp_path: Path) -> None:
    """Parquet and CSV files that somebody else wrote."""
    pd = pytest.importorskip("pandas")
    pa = pytest.importorskip("pyarrow")
    pl = pytest.importorskip("polars")
    for kind in ("parquet", "csv"):
        path = str(tmp_path / f"data.{kind}")
        getattr(pd.DataFrame({"a": [1, 2]}), f"to_{kind}")(path, index=False)
        frame = trip(DataFrame.from_existing_remote(path, format=kind))
        assert list(frame.all_sync()["a"]) == [1, 2]
        assert frame.open(pa.Table).all_sync().num_rows == 2
        assert frame.open(pl.DataFrame).all_sync().height == 2
    with pytest.raises(ValueError, match="format 'xls' is not known"):
        DataFrame.from_existing_remote("x", format="xls").all_sync()


def test_a_dataframe_wraps_frames_only(blobs: Blobs) -> None:
    """Anything else is refused at once; an empty one when it travels."""
    with pytest.raises(TypeError, match=r"not numpy\.ndarray"):
        DataFrame.from_df(np.zeros(3))
    with pytest.raises(SerializationError, match="holds nothing"):
        trip(DataFrame())

"""The copy of a small file's rows: what is read is what the columns hold, and a false copy harms no other file."""

import base64
import json
import math
import zlib
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.store import Store, rowcopies, rowcopy, tables
from orchestrator.store.folder import Folder
from orchestrator.store.store import sealed_table
from tests.storerows import outcomes, put

KINDS = pa.schema(
    [
        ("text", pa.string()),
        ("number", pa.float64()),
        ("short", pa.float32()),
        ("count", pa.int64()),
        ("flag", pa.bool_()),
        ("time", pa.timestamp("ms", tz="UTC")),
    ]
)


def rows_of(generator, count, nulls):
    """Rows of every kind of column, some of them null, with long runs of text and floats of every kind."""
    # JSON has no word for what is not finite, and bytes none for null.
    special = [0.0, -0.0, 5e-324, 1 / 3, *([] if nulls else [math.inf, math.nan])]
    rows = [
        {
            "text": f"ε {number // 50}\n\0",
            "number": special[number % len(special)] if number % 7 else float(generator.normal()),
            "short": float(np.float32(generator.normal())),
            "count": int(generator.integers(-(2**63), 2**63)),
            "flag": bool(generator.random() < 0.5),
            "time": datetime.fromtimestamp(int(generator.integers(10**9)), UTC),
        }
        for number in range(count)
    ]
    return [
        {name: None if nulls and generator.random() < 0.2 else value for name, value in row.items()} for row in rows
    ]


def test_rows_of_many_files_are_read_as_they_were_written():
    generator = np.random.default_rng(0)
    files = [
        pa.Table.from_pylist(rows_of(generator, count, nulls), KINDS)
        for count, nulls in ((3, False), (1, True), (200, False), (64, True), (65, False), (300, True), (1, False))
    ]
    words = rowcopy.described(KINDS)
    copies = [
        rowcopy.read(bytes(sealed_table(table, KINDS, copy=rowcopy.written(table))), KINDS, words) for table in files
    ]
    for encoded in ([], ["text"]):
        table = rowcopies.joined(copies, KINDS, KINDS.names, encoded).cast(KINDS)
        # By their text: NaN is not equal to itself, and -0.0 is equal to 0.0.
        assert repr(table.to_pylist()) == repr(pa.concat_tables(files).to_pylist())
    assert rowcopies.joined(copies, KINDS, ["flag", "text"], []).column_names == ["flag", "text"]


def test_what_a_copy_cannot_hold_is_left_to_the_columns():
    assert rowcopy.written(KINDS.empty_table()) == ""
    assert rowcopy.written(pa.table({"image": [b"bytes"]})) == ""
    assert rowcopy.written(pa.table({"labels": [[1, 2]]})) == ""
    assert rowcopy.written(pa.table({"distance": [1.0, math.inf, None]})) == ""
    noise = np.random.default_rng(0).random(9000)
    assert rowcopy.written(pa.table({"number": noise})) == ""


@pytest.fixture
def copy_of():
    """Makes the copy of an object, or of a text in its place, and of bytes, for rows of outcomes."""

    def make(line, content=b"", rows=4, numbers=""):
        text = line if isinstance(line, str) else json.dumps(line)
        first = f"{rows} {numbers} {rowcopy.described(tables.OUTCOMES)}"
        packed = base64.b64encode(zlib.compress(f"{first}\n{text}\n".encode() + content)).decode()
        return f" rows:{len(packed):08}{packed}"

    return make


#: The columns but the cell and the image, all of one value.
REST = {"robust": [True], "linf": [0.1], "zero_grad": [False]}


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ({"cell": ["b"], "image": [0, 1, 2], "image*": [1, 1, 1]}, {}),
        ({"cell": ["b"], "image": [0, 1, 2, 3], "image*": [1, 1, 2]}, {}),
        ({"cell": ["b"], "image": [0, 1, 2], "image*": [1, 4, -1]}, {}),
        ({"cell": ["b"], "image": [0, 1, 2], "image*": [2, 2, 0]}, {}),
        ({"cell": ["b"], "image": [0, 1, 2], "image*": [2, None, 2]}, {}),
        ({"cell": ["b"], "image": [0, 1]}, {}),
        ({"cell": ["b"], "image": [0, 1], "image*": [2.5, 1.5]}, {}),
        ({"cell": ["b"], "image": [0, 1], "image*": ["2", "2"]}, {}),
        ({"cell": ["b"], "image": [0, "b"], "image*": [2, 2]}, {}),
        ({"cell": ["b"], "image": 0}, {}),
        ({"cell": ["b"]}, {"content": bytes(31), "numbers": "image"}),
        ({"cell": ["b"]}, {"content": bytes(33), "numbers": "image"}),
        ({"cell": ["b"]}, {"content": bytes(32), "numbers": "pixel"}),
        ({"image": [0]}, {"content": bytes(4), "numbers": "cell"}),
        ({"cell": ["b"], "image": [2**31]}, {}),
        ({"cell": [None], "image": [0]}, {}),
        ({"cell": ["b"]}, {}),
        ({"cell": ["b"], "image": [0]}, {"rows": 10**12}),
        ({"cell": ["b"], "image": [0]}, {"rows": 0}),
        ({"cell": ["b"], "image": [0]}, {"rows": "four"}),
        ('{"cell": ["b"], "image": [0]} {"cell": ["b"], "image": [0]}', {}),
        ("", {}),
        ("4", {}),
        ("[4]", {}),
        ("{", {}),
    ],
)
def test_a_false_copy_is_named_and_harms_no_other_file(tmp_path, copy_of, line, options):
    store = Store(str(tmp_path))
    for name in "abc":
        put(store, name, name)
    table = pa.Table.from_pylist(outcomes("b"), tables.OUTCOMES)
    line = line | REST if isinstance(line, dict) else line
    store.write("outcomes/b.parquet", sealed_table(table, tables.OUTCOMES, copy=copy_of(line, **options)))
    folder = Folder(store, "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)
    read = folder.read("abc")
    assert folder.broken.keys() == {"b"}
    assert {name: table["cell"].to_pylist() for name, table in read.items()} == {name: [name] * 4 for name in "ac"}


def test_a_copy_made_by_hand_is_read(tmp_path, copy_of):
    store = Store(str(tmp_path))
    table = pa.Table.from_pylist(outcomes("b"), tables.OUTCOMES)
    numbers = np.array([7, 8, 9, 10], dtype="<i8").tobytes()
    copy = copy_of({"cell": ["b", "c"], "cell*": [1, 3], **REST}, numbers, numbers="image")
    store.write("outcomes/b.parquet", sealed_table(table, tables.OUTCOMES, copy=copy))
    rows = store.table("outcomes", tables.OUTCOMES, ["cell", "image"]).to_pylist()
    assert [(row["cell"], row["image"]) for row in rows] == [("b", 7), ("c", 8), ("c", 9), ("c", 10)]

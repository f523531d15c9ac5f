"""`vsehub index export`, for other engines, and `vsehub index calibrate`, for a cut-off that lets a search say no."""

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers.utils import logging

from ..data.arguments import add_data_flags, data_arguments
from ..data.rows import image_source, prepare_rows
from ..files.outputs import output_file, output_folder
from ..files.whole import whole_file
from .index_segments import SCHEMA
from .retriever import Retriever
from .vector_index import VectorIndex

ROWS_AT_ONCE = 8192
logger = logging.get_logger(__name__)


def vector_batches(index: VectorIndex):
    """Yield the rows of an index as Arrow record batches: its items and `vector`, a list of fixed size."""
    schema = export_schema(index)
    for vectors, items in index.batches():
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            part = vectors[start : start + ROWS_AT_ONCE]
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), index.dimension)
            table = items.slice(start, ROWS_AT_ONCE).append_column(schema.field("vector"), column)
            yield from table.combine_chunks().to_batches()


def export_schema(index: VectorIndex) -> pa.Schema:
    """The columns of an export."""
    return SCHEMA.append(pa.field("vector", pa.list_(pa.float32(), index.dimension)))


def to_parquet(index: VectorIndex, out):
    """Write the index as one parquet file, whole or not at all."""
    with whole_file(out) as file, pq.ParquetWriter(file, export_schema(index)) as writer:
        for batch in vector_batches(index):
            writer.write_batch(batch)


def to_lance(index: VectorIndex, out, table: str):
    """Write the index as a table of an embedded LanceDB database; a table of that name is replaced.

    Raises:
        ImportError: without lancedb; the message names the extra.
    """
    try:
        import lancedb
    except ImportError:
        raise ImportError('--to lance needs lancedb: pip install "vsehub[lance]"') from None
    reader = pa.RecordBatchReader.from_batches(export_schema(index), vector_batches(index))
    lancedb.connect(str(out)).create_table(table, data=reader, mode="overwrite")


def export(argv: list[str]) -> int:
    """Run `vsehub index export`."""
    parser = argparse.ArgumentParser("vsehub index export", description="write an index for another engine")
    parser.add_argument("index")
    parser.add_argument("--to", choices=("parquet", "lance"), default="parquet")
    parser.add_argument("--out", required=True, help="parquet file, or folder of the LanceDB database")
    parser.add_argument("--table", default="images", help="of the database (default: %(default)s)")
    args = parser.parse_args(argv)
    index, _ = VectorIndex.open(args.index), (output_file if args.to == "parquet" else output_folder)(args.out)
    if not len(index):
        raise ValueError(f"{args.index} is empty: there is nothing to export")
    if args.to == "parquet":
        to_parquet(index, args.out)
    else:
        to_lance(index, args.out, args.table)
    print(f"{args.out}: {len(index)} rows of {index.dimension} numbers; compare them by cosine")
    return 0


def calibrate(argv: list[str]) -> int:
    """Run `vsehub index calibrate`."""
    parser = argparse.ArgumentParser("vsehub index calibrate", description="choose the least cosine of a hit")
    parser.add_argument("index")
    parser.add_argument("--data", required=True, help="pairs that the model was not trained on, as for training")
    parser.add_argument("--split", default="validation")
    add_data_flags(parser)
    parser.add_argument("--limit", type=int, default=1000, help="images looked at (default: %(default)s)")
    parser.add_argument("--off_topic", help="text file: a line each that nothing in the index answers")
    parser.add_argument("--quiet", type=float, default=0.95, help="share of hopeless queries that must find nothing")
    parser.add_argument("--model", help="where the model lies now, if it moved")
    args = parser.parse_args(argv)
    if args.limit < 2:
        raise ValueError(f"--limit {args.limit}: a cut-off needs at least two images")
    off_topic = _lines(args.off_topic) if args.off_topic else []
    if off_topic and not len(VectorIndex.open(args.index)):
        raise ValueError(f"{args.index} is empty, and --off_topic asks it: index pictures first")
    rows = prepare_rows(data_arguments(args), args.split, None, need_dense=False, limit=args.limit)
    owners = [number for number, texts in enumerate(rows["captions"]) for _ in texts]
    texts = [text for several in rows["captions"] for text in several]
    retriever = Retriever.open(args.index, args.model)
    found = retriever.calibrate([image_source(image) for image in rows["image"]], texts, owners, off_topic, args.quiet)
    print(
        f"cut-off {found['text']:.4f}: {100 * found['quiet']:.1f} % of {found['off_topic']} hopeless queries find "
        f"nothing; {100 * found['kept']:.1f} % of {found['pairs']} captions still find their own image"
    )
    if found["kept"] < 0.5:
        logger.warning(
            "this cut-off hides most right answers: the model hardly tells them from wrong ones on this data, or the "
            "data's images answer each other's captions (then give --off_topic)"
        )
    return 0


def _lines(path: str) -> list[str]:
    try:
        found = [line.strip() for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error})") from None
    if not found:
        raise ValueError(f"{path}: no line of text in it")
    return found


COMMANDS = {"export": export, "calibrate": calibrate}

__all__ = ["COMMANDS", "to_lance", "to_parquet", "vector_batches"]

"""Run in a process of its own, with vsehub installed: read a data set of the Hub at `HF_ENDPOINT` as it comes.

Arguments: where to write the report, and the data set's id.
"""

import json
import sys
from pathlib import Path


def main(target: str, source: str):
    """Report the captions of two shares, and those of the evaluation split."""
    from vsehub.data.arguments import DataArguments
    from vsehub.data.rows import prepare_rows
    from vsehub.data.streams import Share, open_stream

    args = DataArguments(data=source, streaming=True)
    stream = open_stream(args, "train")
    shares = [Share(stream, number, 2, 6, seed=0) for number in range(2)]
    report = {
        "files": stream.table.num_shards,
        "shares": [[share[sample]["captions"] for sample in range(6)] for share in shares],
        "evaluation": list(prepare_rows(args, "validation", None, need_dense=False)["captions"]),
    }
    Path(target).write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])

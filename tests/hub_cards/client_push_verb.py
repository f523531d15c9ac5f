"""Run in a process of its own: `vsehub push` with the arguments given as JSON lists, one run after the other.

Arguments: where to write the report (exit status, what was printed on stderr), and the runs.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    from vsehub.__main__ import main

    target, runs = sys.argv[1:]
    report = []
    for words in json.loads(runs):
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            status = main(["push", *words])
        report.append({"status": status, "printed": printed.getvalue()})
    Path(target).write_text(json.dumps(report))

"""The environment of the tests: no network, and a folder of their own for what libraries and subprocesses leave behind.

The folders of `tmp_path` stay where pytest puts them, so that those of a failed test can be looked at.

Imported before any library that reads these variables.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
ROOM = tempfile.mkdtemp(prefix="vsehub-")  # temporary files, and caches that belong into no contributor's home
atexit.register(shutil.rmtree, ROOM, ignore_errors=True)
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": ROOM, "TMPDIR": ROOM}
tempfile.tempdir = ROOM

"""The environment of the tests: no network, and a folder of their own for what libraries and subprocesses leave behind.

Imported before any library that reads these variables.
"""

import atexit
import os
import shutil
import tempfile

ROOM = tempfile.mkdtemp(prefix="vsehub-")  # temporary files, and caches that belong into no contributor's home
atexit.register(shutil.rmtree, ROOM, ignore_errors=True)
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": ROOM, "TMPDIR": ROOM}

"""Run in a process of its own, with vsehub installed: push a folder's model and processor to the Hub at `HF_ENDPOINT`.

Arguments: where to write the report (the repository's files), the folder, the name of the repository.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    from huggingface_hub import HfApi
    from transformers import AutoModel, AutoProcessor

    from vsehub import D2SVSEModel  # noqa: F401  (registers the classes)

    target, folder, name = sys.argv[1:]
    AutoModel.from_pretrained(folder).push_to_hub(name)
    AutoProcessor.from_pretrained(folder).push_to_hub(name)
    Path(target).write_text(json.dumps(HfApi().list_repo_files(name)))

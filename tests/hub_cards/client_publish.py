"""Run in a process of its own, with vsehub installed: publish two models to the Hub at `HF_ENDPOINT`, and load them.

Arguments: where to write the report, the folders of a first and a second model with processors, a model card, and a
folder for the rest. `tester/pushed` holds the first pair at the tag `v1` and the second on `main`; `tester/given` holds
the second model's weights, passed as `state_dict` to the first, in shards.
"""

import json
import sys
from pathlib import Path


def publish(first: str, second: str, card: str, folder: str):
    """Make the repositories, with every way to push."""
    from huggingface_hub import HfApi

    from vsehub import D2SVSEModel, D2SVSEProcessor

    api = HfApi()
    models = [D2SVSEModel.from_pretrained(source) for source in (first, second)]
    processors = [D2SVSEProcessor.from_pretrained(source) for source in (first, second)]
    models[0].push_to_hub("pushed", commit_message="first model")
    processors[0].push_to_hub("tester/pushed")
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="tester/pushed")
    api.create_tag("tester/pushed", tag="v1")
    models[1].save_pretrained(f"{folder}/saved", push_to_hub=True, repo_id="tester/pushed", token="hf_other")
    processors[1].save_pretrained(f"{folder}/saved", push_to_hub=True, repo_id="tester/pushed", commit_message="new")
    models[0].save_pretrained(
        Path(folder) / "given", push_to_hub=True, state_dict=models[1].state_dict(), max_shard_size="30KB"
    )
    processors[1].push_to_hub("given", private=True, revision="main")
    models[1].push_to_hub("tester/branched", revision="experiment")


def installed_classes() -> dict:
    """Load without trusting anything: the classes of this installation serve."""
    from transformers import AutoModel, AutoProcessor

    report = {}
    for revision in (None, "v1"):
        model = AutoModel.from_pretrained("tester/pushed", revision=revision)
        report[str(revision)] = {
            "classes": [
                type(model).__module__,
                type(model._own_processor()).__module__,
                type(AutoProcessor.from_pretrained("tester/pushed", revision=revision)).__module__,
            ],
            "limit": model._own_processor().tokenizer.model_max_length,
        }
    return report


if __name__ == "__main__":
    target, first, second, card, folder = sys.argv[1:]
    publish(first, second, card, folder)
    Path(target).write_text(json.dumps(installed_classes()))

"""Other files of a Hub repository: the pipeline, the endpoint handler, the files of sentence-transformers.

Each is small and static, and lets another library or service load the folder.
"""

import json
from pathlib import Path

from ..files.whole import write_draft

PIPELINE = "vsehub.processing.pipeline_image_text_retrieval"
TASK = "image-text-retrieval"
CUSTOM_PIPELINES = {
    TASK: {
        "impl": "pipeline_image_text_retrieval.ImageTextRetrievalPipeline",
        "pt": ["AutoModel"],
        "type": "multimodal",
    }
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"},
]
FEATURES = {"method_output_name": "pooler_output"}
SENTENCE_BERT = {
    "transformer_task": "feature-extraction",
    "modality_config": {
        "text": {"method": "get_text_features", **FEATURES},
        "image": {"method": "get_image_features", **FEATURES},
    },
    "module_output_name": "sentence_embedding",
}


def write_companions(folder: str | Path):
    """Write the endpoint's handler and the four files of sentence-transformers into a saved model's folder."""
    folder = Path(folder)
    for name, content in (
        ("modules.json", MODULES),
        ("sentence_bert_config.json", SENTENCE_BERT),
        ("config_sentence_transformers.json", {"similarity_fn_name": "cosine"}),
        ("1_Normalize/config.json", {}),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        write_draft(folder / name, json.dumps(content, indent=2))
    source = Path(__file__).with_name("handler.py").read_text(encoding="utf-8")
    write_draft(folder / "handler.py", source)

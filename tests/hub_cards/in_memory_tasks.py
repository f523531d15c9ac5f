"""An image-to-text and a text-to-image task of mteb whose data are made in memory; imported by clients alone."""

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata


def task(name: str, category: str, modalities: list[str], queries: dict, corpus: dict) -> AbsTaskRetrieval:
    """A task in which query i is answered by item i."""
    count = len(next(iter(queries.values())))

    class InMemory(AbsTaskRetrieval):
        metadata = TaskMetadata(
            type="Any2AnyRetrieval", name=name, main_score="ndcg_at_10", category=category, modalities=modalities,
            description="made in memory", reference="https://example.com", eval_splits=["test"],
            dataset={"path": "none", "revision": "none"}, eval_langs=["eng-Latn"], date=("2026-01-01", "2026-01-01"),
            dialect=["Written"], domains=[], task_subtypes=[], license="cc-by-4.0", annotations_creators="derived",
            sample_creation="found", bibtex_citation="",
        )  # fmt: skip

        def load_data(self, *_, **__):
            data = RetrievalSplitData(
                queries=Dataset.from_dict({"id": [f"q{i}" for i in range(count)], **queries}),
                corpus=Dataset.from_dict({"id": [f"d{i}" for i in range(count)], **corpus}),
                relevant_docs={f"q{i}": {f"d{i}": 1} for i in range(count)},
                top_ranked=None,
            )
            self.dataset, self.data_loaded = {"default": {"test": data}}, True

    return InMemory()


def scores(source, pictures, captions) -> dict:
    """Recall@1 of both tasks, of a model that mteb finds by its name.

    `mteb.get_model` first asks whether the distribution torchvision is installed (its extra `image`); nothing here
    needs it. So: what `get_model` does after that question.
    """
    meta = mteb.get_model_meta(source, fetch_from_hf=True)
    assert {"image", "text"} <= set(meta.modalities), meta.modalities
    model = meta.loader(meta.name, revision=meta.revision, trust_remote_code=True)
    model.mteb_model_meta = meta
    images, texts = {"image": [picture.convert("RGB") for picture in pictures]}, {"text": captions}
    tasks = [
        task("InMemoryI2T", "i2t", ["image", "text"], images, texts),
        task("InMemoryT2I", "t2i", ["image", "text"], texts, images),
    ]
    found = mteb.evaluate(model, tasks, cache=None, encode_kwargs={"batch_size": 4})
    return {result.task_name: result.scores["test"][0]["recall_at_1"] for result in found.task_results}

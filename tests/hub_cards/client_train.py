"""Run in a process of its own, with vsehub installed: train two steps and publish with `trainer.push_to_hub`.

Arguments: where to write the report, and the folder of a model with its processor. The Hub at `HF_ENDPOINT` then holds
`tester/trained`.
"""

import json
import sys
from pathlib import Path


def main(target: str, source: str):
    """Train on noise, push, and report what the trained model computes."""
    import numpy as np
    from datasets import Dataset
    from PIL import Image

    from vsehub import D2SVSEModel, D2SVSEProcessor
    from vsehub.losses.objectives import D2SObjective
    from vsehub.training.flags.arguments import RetrievalTrainingArguments
    from vsehub.training.inputs.batches import PairCollator
    from vsehub.training.inputs.pairs import PairDataset
    from vsehub.training.trainer import RetrievalTrainer

    work = Path(target).parent / "work"
    work.mkdir()
    rows = []
    for row in range(8):
        path = work / f"{row}.png"
        Image.fromarray(np.random.default_rng(row).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        rows.append({"image": {"bytes": None, "path": str(path)}, "captions": ["a dog", "a cat"], "image_id": str(row)})
    processor = D2SVSEProcessor.from_pretrained(source)
    model = D2SVSEModel.from_pretrained(source)
    data = Dataset.from_list(rows)
    args = RetrievalTrainingArguments(
        output_dir=str(work / "out"),
        hub_model_id="tester/trained",
        max_steps=2,
        per_device_train_batch_size=8,
        use_cpu=True,
        eval_strategy="no",
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=False,
    )
    trainer = RetrievalTrainer(
        model=model,
        args=args,
        objective=D2SObjective(align="infonce"),
        processor=processor,
        train_dataset=PairDataset(data, processor),
        data_collator=PairCollator(processor),
        eval_rows=data,
    )
    trainer.train()
    trainer.push_to_hub()
    trainer.push_to_hub(commit_message="again")  # a second push must find its own repository
    embeds = model.encode_text(["a dog"], processor=processor)
    Path(target).write_text(json.dumps({"text": embeds.tolist()}))


if __name__ == "__main__":
    main(*sys.argv[1:])

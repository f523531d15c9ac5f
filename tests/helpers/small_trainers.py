"""A trainer made by hand, on the rows of a small data set."""

from vsehub import D2SVSEModel, D2SVSEProcessor
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.losses.objectives import D2SObjective
from vsehub.training.flags.arguments import RetrievalTrainingArguments
from vsehub.training.inputs.batches import PairCollator
from vsehub.training.inputs.pairs import PairDataset
from vsehub.training.trainer import RetrievalTrainer


def trainer_of(scenes, out, model=None, **kwargs):
    """A trainer on the first rows, by hand."""
    rows = prepare_rows(DataArguments(data=scenes[1]), "train", str(out), need_dense=True)
    processor = D2SVSEProcessor.from_vision_text_pretrained(None, scenes[5], 32)
    model = model or D2SVSEModel.from_vision_text_pretrained(
        scenes[3], scenes[5], projection_dim=16, use_decoder=False, image_size=32
    )
    args = RetrievalTrainingArguments(
        output_dir=str(out), max_steps=2, per_device_train_batch_size=8, use_cpu=True, eval_strategy="no",
        save_strategy="no", load_best_model_at_end=False, **kwargs,
    )  # fmt: skip
    return RetrievalTrainer(
        model=model,
        args=args,
        objective=D2SObjective(),
        processor=processor,
        train_dataset=PairDataset(rows, processor),
        data_collator=PairCollator(processor),
        eval_rows=rows,
    )

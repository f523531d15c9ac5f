"""Train D2S-VSE: dense captions first, then short captions under the dense teacher.

    accelerate launch training/run_d2s.py training/recipes/d2s_vse_flickr30k_vit.yaml --data PATH
    vsehub train training/recipes/d2s_vse_flickr8k_cpu.yaml
    python training/run_d2s.py --vision google/vit-base-patch16-224-in21k --text bert-base-uncased --data org/pairs

`--stages pretrain`, `--stages finetune --stage1_model FOLDER` and `--stages baseline` run one part alone. Each stage
selects its best epoch on the evaluation split. The result is a Hub folder, `OUTPUT_DIR/hub`.
"""

import sys
from functools import partial

from vsehub.training.d2s_stages import STAGES, check_stages, load, needs_dense_text, train_stage
from vsehub.training.flags.arguments import D2S_ARGUMENTS
from vsehub.training.preflight import preflight
from vsehub.training.processes.meeting import ending_together
from vsehub.training.splits import pictures_later, read_splits
from vsehub.training.stage_arguments import read_stages
from vsehub.training.stage_card import publish_run
from vsehub.training.stages import run_stages


def main(argv: list[str] | None = None, defaults: dict | None = None) -> int:
    """Run the stages one after the other and write the Hub folder; `defaults` are as for `parse_stages`."""
    stages = read_stages(argv, STAGES, D2S_ARGUMENTS, defaults or {"system": "d2s"})
    with ending_together():
        check_stages(stages)
        preflight(stages)
        first = next(iter(stages.values()))
        splits = read_splits(first, need_dense=needs_dense_text(stages), pictures_later=pictures_later(stages))
        for args in stages.values():  # reading the rows may have chosen it
            args.data.dense_text = first.data.dense_text
        stage = partial(train_stage, splits)
        (model, processor), results = run_stages(stages, stage, load, splits.rows, splits.digests)
        publish_run(stages, model, processor, results, splits.evaluation)
    return 0


if __name__ == "__main__":
    sys.exit(main())

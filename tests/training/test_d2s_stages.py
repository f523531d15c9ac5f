"""D2S-VSE's stages: which model each starts from, and what is refused."""

import pytest
import torch
from small_runs import SMALL, run

from vsehub.training.d2s_stages import STAGES, add_decoder, needs_dense_text
from vsehub.training.flags.arguments import D2S_ARGUMENTS, D2SModelArguments
from vsehub.training.stage_arguments import read_stages


def test_a_stage_one_model_that_would_not_be_used_is_refused(both_stages, scenes, tmp_path):
    with pytest.raises(ValueError, match="starts with pretrain.*--stages finetune"):
        run(scenes, tmp_path, "--stage1_model", str(both_stages[0] / "pretrain" / "best"))


def test_the_hand_over_is_checked(both_stages, scenes, tmp_path):
    out, _ = both_stages
    with pytest.raises(ValueError, match="--stage1_model"):
        run(scenes, tmp_path, "--stages", "finetune")
    with pytest.raises(ValueError, match="not a stage-1 model"):
        run(scenes, tmp_path, "--stages", "finetune", "--stage1_model", str(out / "hub"))
    with pytest.raises(ValueError, match="projection_dim 16, this stage 32"):
        flags = ("--stages", "finetune", "--stage1_model", str(out / "pretrain" / "best"), "--projection_dim", "32")
        run(scenes, tmp_path, *flags)
    with pytest.raises(ValueError, match="image_size 32, this stage 64"):
        flags = ("--stages", "finetune", "--stage1_model", str(out / "pretrain" / "best"), "--image_size", "64")
        run(scenes, tmp_path, *flags)


def test_the_second_stage_has_every_weight_of_the_first_and_a_fresh_decoder(make_tiny_model):
    stage1 = make_tiny_model(use_decoder=False)
    args = D2SModelArguments(projection_dim=16, image_size=32, num_mask_tokens=3, decoder_layers=1, decoder_heads=2)
    stage2 = add_decoder(stage1, args)
    old, new = stage1.state_dict(), stage2.state_dict()
    assert all(torch.equal(new[name], old[name]) for name in old)
    assert {name.partition(".")[0] for name in set(new) - set(old)} == {"mask_token_decoder"}
    assert stage2.config.num_mask_tokens == 3 and stage2.mask_token_decoder.mask_tokens.shape == (3, 16)


@pytest.mark.parametrize(
    ("stages", "flags", "needed"),
    [
        (["pretrain"], [], True),
        (["finetune"], [], True),
        (["finetune"], ["--distill_weight", "0"], False),
        (["baseline"], [], False),
    ],
)
def test_dense_text_is_asked_for_where_a_stage_reads_it(scenes, stages, flags, needed):
    parsed = read_stages([*scenes, *SMALL, "--stages", *stages, *flags], STAGES, D2S_ARGUMENTS)
    assert needs_dense_text(parsed) == needed

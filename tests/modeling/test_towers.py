"""Towers: built, run with padding on either side, loaded and copied whole, and every refusal."""

import pytest
import torch
import transformers
from torch import nn
from transformers import BertConfig, BertModel, ResNetConfig, ViTConfig

from vsehub.modeling.towers import (
    as_tokens,
    build_tower,
    copy_tower,
    hold_batch_norm,
    image_tokens,
    load_errors,
    load_tower,
    run_text_tower,
    run_vision_tower,
)


@pytest.fixture
def text_tower(tiny_text_config):
    torch.manual_seed(0)
    return build_tower(tiny_text_config).eval()


@pytest.fixture
def vision_tower(tiny_vision_config):
    torch.manual_seed(0)
    return build_tower(tiny_vision_config).eval()


def test_maps_become_tokens_row_by_row():
    grid = torch.arange(24.0).reshape(1, 2, 3, 4)  # 2 channels of 3 rows and 4 columns
    tokens = as_tokens(grid)
    assert tokens.shape == (1, 12, 2)
    assert tokens[0, 5].tolist() == grid[0, :, 1, 1].tolist()  # the sixth token: row 1, column 1
    assert as_tokens(tokens) is tokens


@torch.no_grad()
def test_a_position_table_is_interpolated_to_any_size(vision_tower):
    for side in (32, 48, 16):
        assert image_tokens(vision_tower, torch.rand(2, 3, side, side)).shape == (2, (side // 8) ** 2 + 1, 32)
    output = run_vision_tower(vision_tower, torch.rand(1, 3, 32, 32).double(), output_hidden_states=True)
    assert len(output.hidden_states) == 3 and output.last_hidden_state.dtype == torch.float32


@torch.no_grad()
def test_padding_on_the_left_or_between_changes_no_state_of_a_token(text_tower):
    tokens = torch.tensor([7, 11, 13])
    _, alone = run_text_tower(text_tower, tokens[None], torch.ones(1, 3, dtype=torch.long))
    for columns in ([0, 1, 2], [3, 4, 5], [1, 3, 5]):
        ids, mask = torch.zeros(1, 6, dtype=torch.long), torch.zeros(1, 6, dtype=torch.long)
        ids[0, columns], mask[0, columns] = tokens, 1
        _, hidden = run_text_tower(text_tower, ids, mask)
        assert hidden.shape == (1, 6, 32)
        torch.testing.assert_close(hidden[0, columns], alone[0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_types_of_tokens_move_with_their_tokens(text_tower):
    ids, types = torch.tensor([[0, 7, 11]]), torch.tensor([[0, 0, 1]])
    _, left = run_text_tower(text_tower, ids, torch.tensor([[0, 1, 1]]), types)
    _, right = run_text_tower(text_tower, ids.roll(-1), torch.tensor([[1, 1, 0]]), types.roll(-1))
    torch.testing.assert_close(left[:, 1:], right[:, :2], atol=1e-6, rtol=0)
    _, untyped = run_text_tower(text_tower, ids, torch.tensor([[0, 1, 1]]))
    assert (untyped[:, 1:] - left[:, 1:]).abs().max() > 1e-3


def test_batch_norm_is_held_and_nothing_else():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Sequential(nn.BatchNorm1d(4)))
    hold_batch_norm(model.train())
    assert [module.training for module in model] == [True, False, True, True] and not model[3][0].training


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8),
        ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"),
        transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28),
    ],
    ids=lambda config: config.model_type,
)
def test_a_built_tower_trains_what_its_tokens_depend_on(config):
    tower = build_tower(config).train()
    image_tokens(tower, torch.rand(2, 3, 56, 56)).square().sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_a_convolutional_tower_takes_no_notice_of_an_attention_that_it_has_not():
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    config._attn_implementation = "sdpa"
    assert image_tokens(build_tower(config), torch.rand(1, 3, 32, 32)).shape[2] == 8


def test_a_tower_is_loaded_as_it_was_saved(text_tower, tmp_path):
    text_tower.save_pretrained(tmp_path)
    loaded = load_tower(str(tmp_path), "text_config")
    expected = text_tower.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    copied = build_tower(loaded.config)
    copy_tower(loaded, copied, "a")
    assert all(torch.equal(value, expected[name]) for name, value in copied.state_dict().items())


def test_a_tower_with_lost_weights_is_refused_by_the_first_of_them(tiny_text_config, tmp_path):
    tower = BertModel(tiny_text_config)
    state = {name: value for name, value in tower.state_dict().items() if "layer.1.output" not in name}
    tower.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(
        ValueError, match=r"weights of this bert tower are not in the checkpoint \(first: .*layer\.1\.output"
    ):
        load_tower(str(tmp_path), "text_config")


def test_towers_that_do_not_fit_are_refused(tiny_text_config):
    small, large = (
        build_tower(tiny_text_config),
        build_tower(BertConfig(**tiny_text_config.to_dict() | {"num_hidden_layers": 3})),
    )
    with pytest.raises(ValueError, match="mine: the towers do not fit; missing .*layer.2"):
        copy_tower(small, large, "mine")
    with pytest.raises(ValueError, match="left over .*layer.2"):
        copy_tower(large, small, "mine")


@pytest.mark.parametrize(
    ("name", "raised", "expected", "said"),
    [
        ("file", None, ValueError, "is a file: name the folder of a model"),
        ("./nowhere", None, FileNotFoundError, "./nowhere: no such folder"),
        ("folder", ValueError("odd"), ValueError, r"folder is not a complete model \(odd\); copy or download it again"),
        ("org/name", OSError("offline"), OSError, "org/name: no such folder, and it could not be loaded from the Hub"),
        ("org/name", ValueError("pass trust_remote_code"), ValueError, "needs code of its own"),
        ("org/name", ZeroDivisionError("ours"), ZeroDivisionError, "ours"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named_with_the_remedy(tmp_path, monkeypatch, name, raised, expected, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(expected, match=said), load_errors(name):
        if raised is not None:
            raise raised


def test_damaged_weights_are_named(text_tower, tmp_path):
    text_tower.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="its weights are damaged .*copy or download them again"):
        load_tower(str(tmp_path), "text_config")


def test_an_adapter_alone_is_named_as_such(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    merge = r"PeftModel.from_pretrained\(AutoModel.from_pretrained\(BASE\), .*\).merge_and_unload\(\)"
    with pytest.raises(ValueError, match=f"is an adapter of another model: merge them and save the whole, {merge}"):
        load_tower(str(tmp_path), "text_config")


@pytest.mark.parametrize(
    ("graph", "said"),
    [("visual/model.onnx", "holds ONNX graphs for other programs: name the folder"), ("a.bin", "names no model_type")],
)
def test_a_folder_of_another_kind_is_named_as_such(tmp_path, graph, said):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "visual").mkdir()
    (tmp_path / graph).write_text("")
    with pytest.raises(ValueError, match=said):
        load_tower(str(tmp_path), "text_config")

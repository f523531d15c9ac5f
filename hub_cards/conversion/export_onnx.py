"""Export the image side and the text side of a model as two ONNX graphs, or the model in bfloat16.

`visual/model.onnx` maps `pixel_values` (B, 3, S, S) to unit vectors (B, D), `textual/model.onnx` `input_ids` and
`attention_mask` (B, L), int64, to unit vectors (B, D); batch and length are free. Beside them lie the preprocessing and
the tokenizer. GPO's rank weights depend on the number of tokens alone, so a table takes the place of its recurrence.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers.utils import cached_file

from ...files.outputs import output_folder
from ...files.text import text_of
from ...files.whole import whole_folder
from ...modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ...modeling.pooling import GPO
from ...modeling.towers import load_complete, load_errors
from ...processing.load_encoder import load_processor
from ...processing.processing_dual_encoder import text_positions

TOLERANCE = 1e-4
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers, in torchvision's words
SENTENCE = "a small boat lies beside the long wooden bridge while two people look at the river in the evening sun"


class RankTable(nn.Module):
    """A GPO as a table of its weights for sets of 1 to `largest` members, without its recurrent network."""

    def __init__(self, pooling: GPO, largest: int):
        super().__init__()
        lengths = torch.arange(largest + 1)
        outside = lengths[None] >= lengths[:, None]
        outside = outside[:, :largest]
        rows = [pooling.weights(lengths[i : i + 1], outside[i : i + 1]) for i in range(1, largest + 1)]
        self.register_buffer("table", torch.cat([torch.zeros(1, largest), *rows]))  # (largest + 1, largest)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool (B, N, D) under a mask (B, N) to (B, D)."""
        size = features.shape[1]
        if mask is None:
            weights = self.table[size, :size][None]
        else:
            mask = mask.bool()
            weights = self.table[mask.sum(1)][:, :size]
            features = features.masked_fill(~mask.unsqueeze(-1), torch.finfo(features.dtype).min)
        ordered = features.sort(dim=1, descending=True).values
        if mask is not None:
            ordered = ordered.masked_fill((weights == 0).unsqueeze(-1) & (ordered < -1e30), 0.0)
        return (ordered * weights.unsqueeze(-1)).sum(1)


class Side(nn.Module):
    """One side of a model: its inputs to unit vectors."""

    def __init__(self, model: DualEncoderPreTrainedModel, visual: bool):
        super().__init__()
        self.model, self.visual = model, visual

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Embed pixel values, or token ids and attention mask."""
        if self.visual:
            features = self.model.get_image_features(inputs[0], return_dict=True)
        else:
            features = self.model.get_text_features(inputs[0], attention_mask=inputs[1], return_dict=True)
        return F.normalize(features.pooler_output, dim=-1)


def export_onnx(model: DualEncoderPreTrainedModel, processor, out: Path) -> dict:
    """Write both graphs and their processors, and compare them with the model in onnxruntime.

    Args:
        model, processor: as loaded; the model is put in eval mode, float32 and eager attention.
        out: folder; `visual/`, `textual/` and `parity.json` go there.

    Returns:
        The largest difference of any number of any embedding, by side, also at batches and lengths that the graphs
        were not traced with.

    Raises:
        ImportError: without onnx and onnxruntime.
        ValueError: a graph differs from the model by more than 1e-4, or `preparation` has no words for the processor.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError('export to ONNX needs onnx and onnxruntime: pip install "vsehub[onnx]"') from None
    prepared = preparation(processor.image_processor, model.config.image_size)
    model = model.float().cpu().eval()
    model.set_attn_implementation("eager")  # scaled_dot_product_attention of Swin's windows cannot be traced
    originals = Side(model, True).eval(), Side(model, False).eval()
    longest = _longest(model, processor.tokenizer)
    with torch.no_grad():
        expected = {
            name: [side(*inputs) for inputs in samples]
            for name, side, samples in _sample_inputs(originals, processor, longest)
        }
        pools = [(name, module) for name, module in model.named_modules() if isinstance(module, GPO)]
        tokens = model.vision_tokens(torch.zeros(1, 3, model.config.image_size, model.config.image_size)).shape[1]
        for name, module in pools:
            setattr(model, name, RankTable(module, tokens if name.startswith("image") else longest))
    try:
        report = {
            name: _export(side, samples, expected[name], out / name, longest)
            for name, side, samples in _sample_inputs(originals, processor, longest)
        }
    finally:
        for name, module in pools:
            setattr(model, name, module)
    _write_preparation(model, processor, out, longest, prepared)
    (out / "parity.json").write_text(json.dumps({"max_abs_difference": report, "tolerance": TOLERANCE}, indent=2))
    wrong = {name: value for name, value in report.items() if not value <= TOLERANCE}
    if wrong:
        raise ValueError(f"the ONNX graphs differ from the model by {wrong}, more than {TOLERANCE}")
    return report


def _sample_inputs(sides, processor, longest: int):
    """Name, side and inputs of both: the first to trace with, the others of other batch sizes and lengths."""
    size, torch_generator = sides[0].model.config.image_size, torch.Generator().manual_seed(0)
    pixels = [(torch.randn(n, 3, size, size, generator=torch_generator),) for n in (3, 1, 2)]
    texts = [["two boats", "a", SENTENCE], [SENTENCE[:20]], ["bridge over a river", "two boats"]]
    tokens = [
        processor.tokenizer(t, padding=True, truncation=True, max_length=longest, return_tensors="pt") for t in texts
    ]
    return (
        ("visual", sides[0], pixels),
        ("textual", sides[1], [(x["input_ids"], x["attention_mask"]) for x in tokens]),
    )


def _export(side: Side, samples, expected, folder: Path, longest: int) -> float:
    """Trace with the first inputs, write, and return the largest difference over all inputs."""
    import onnxruntime

    folder.mkdir(parents=True, exist_ok=True)
    names = ["pixel_values"] if side.visual else ["input_ids", "attention_mask"]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=longest)
    free = tuple({0: batch} if side.visual else {0: batch, 1: length} for _ in names)
    torch.onnx.export(
        side,
        samples[0],
        str(folder / "model.onnx"),
        input_names=names,
        output_names=["embeds"],
        dynamic_shapes=(free,),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {n: x.numpy() for n, x in zip(names, inputs)})[0] for inputs in samples]
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(outputs, expected))


def _longest(model, tokenizer) -> int:
    """Number of tokens that both the tokenizer and the text tower accept."""
    return int(min(tokenizer.model_max_length, text_positions(model.config.text_config) or 512))


def preparation(pictures, size: int) -> dict:
    """What an image processor does, in the words of open_clip's `preprocess_cfg.json`.

    Args:
        pictures: an image processor of transformers.
        size: side in pixels of the images that the graph takes.

    Raises:
        ValueError: it does something that the file cannot say, or makes images of another size.
    """

    def setting(name):
        return getattr(pictures, name, None)

    def square(sides):
        sides = dict(sides or {})
        return sides.keys() == {"height", "width"} and set(sides.values()) == {size}

    crops = bool(setting("do_center_crop"))
    if crops and dict(setting("size") or {}) == {"shortest_edge": size} and square(setting("crop_size")):
        mode = "shortest"
    elif square(setting("size")) and (not crops or square(setting("crop_size"))):
        mode = "squash"
    else:
        raise ValueError(
            f"the processor makes images by size={setting('size')}, do_center_crop={crops}, crop_size="
            f"{setting('crop_size')}; preprocess_cfg.json can say squares of the {size} pixels that the model takes, "
            "stretched, or cut after the shorter side is as long: change the processor and save it again"
        )
    for name, needed in (("do_resize", True), ("do_rescale", True), ("do_pad", False)):
        if bool(setting(name)) is not needed:
            raise ValueError(f"the processor has {name}={setting(name)}, which preprocess_cfg.json cannot say")
    if abs(setting("rescale_factor") * 255 - 1) > 1e-6:
        raise ValueError(f"the processor has rescale_factor={setting('rescale_factor')}, not 1/255 as open_clip has")
    normalises = bool(setting("do_normalize"))
    return {
        "size": [size] * 2,
        "mode": "RGB",
        "mean": list(pictures.image_mean) if normalises else [0.0] * 3,
        "std": list(pictures.image_std) if normalises else [1.0] * 3,
        "interpolation": FILTERS[int(pictures.resample)],
        "resize_mode": mode,
        "fill_color": 0,
    }


def _write_preparation(model, processor, out: Path, longest: int, prepared: dict):
    """The facts that a consumer needs to prepare inputs."""
    (out / "visual" / "preprocess_cfg.json").write_text(json.dumps(prepared, indent=2))
    processor.tokenizer.save_pretrained(out / "textual")
    facts = {"embed_dim": model.config.projection_dim, "text_cfg": {"context_length": longest}}
    facts["vision_cfg"] = {"image_size": model.config.image_size}
    (out / "config.json").write_text(json.dumps(facts, indent=2))


def export_dtype(model: DualEncoderPreTrainedModel, processor, out: Path, dtype: torch.dtype) -> dict:
    """Save the model in another number format; returns the mean cosine of its embeddings with the float32 ones."""
    sides = Side(model.float().eval(), True), Side(model, False)
    samples = _sample_inputs(sides, processor, _longest(model, processor.tokenizer))
    with torch.no_grad():
        exact = {name: torch.cat([side(*x) for x in inputs]) for name, side, inputs in samples}
        model.to(dtype)
        rough = {name: torch.cat([side(*x).float() for x in inputs]) for name, side, inputs in samples}
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return {name: float((exact[name] * F.normalize(rough[name], dim=-1)).sum(-1).mean()) for name in exact}


def copy_card(source: str, out: Path, dtype: str, report: dict, revision: str | None = None):
    """Copy the model's card, if it has one, and add what was done to the weights."""
    path = cached_file(source, "README.md", revision=revision, _raise_exceptions_for_missing_entries=False)
    if path is not None:
        cosines = ", ".join(f"{name} {value:.5f}" for name, value in report.items())
        said = (
            f"These are {dtype} weights; mean cosine with the float32 embeddings, whose figures stand above: {cosines}."
        )
        card = text_of(path).rstrip()
        (out / "README.md").write_text(f"{card}\n\n## Number format\n\n{said}\n", encoding="utf-8")


def export_model(
    source: str,
    out: str | Path,
    to: str = "onnx",
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, float]:
    """Write a saved model in another form.

    Args:
        source: folder or Hub id of a model of vsehub and its processor.
        out: a folder that is new or empty.
        to: `onnx` (two graphs) or `transformers` (a folder that AutoModel loads).
        dtype: `float32` or `bfloat16`, of the latter.
        revision: commit, tag or branch of a Hub id.
        trust_remote_code: run the code that the repository brings.

    Returns:
        By side, `visual` and `textual`: the largest difference from the model (onnx), or the mean cosine with float32.

    Raises:
        FileExistsError: `out` holds files.
        ValueError: no model of vsehub, one that lacks weights or its processor, or graphs that differ from it.
        ImportError: without onnx and onnxruntime.
    """
    out = output_folder(out)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: choose a new folder")
    loading = {"revision": revision, "trust_remote_code": trust_remote_code}
    with load_errors(source):
        model = load_complete(AutoModel, source, **loading)
        if not isinstance(model, DualEncoderPreTrainedModel):
            raise ValueError(
                f"{source} is a {type(model).__name__}, and only models of vsehub (D2S-VSE, PIR) are exported"
            )
        processor = load_processor(source, **loading)
    with whole_folder(out) as draft:
        if to == "onnx":
            return export_onnx(model, processor, draft)
        report = export_dtype(model, processor, draft, getattr(torch, dtype))
        copy_card(source, draft, dtype, report, revision)
        return report


__all__ = ["export_dtype", "export_model", "export_onnx", "preparation"]

"""Hidden states of a frozen tower, computed once and kept on disk in half precision.

An image with N tokens of C channels takes 2 N C bytes (MobileNetV2 at 224 px: 49 x 1280, 125 kB); training then does
not run the tower at all. The name of a cache is a digest of the tower's weights, the inputs and the image size.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from ...data.picture_checks import image_source, picture_problem
from ...evaluation.embed import RowInputs
from ...files.arrays import read_array
from ...files.digests import pictures_digest, tower_digest
from ...files.whole import one_writer, whole_folder
from ...modeling.modeling_dual_encoder import DualEncoderPreTrainedModel
from ...modeling.towers import run_text_tower
from ...processing.batching import batches_of, by_length, decoding_threads, pad_states, run_batches, tokenize
from ...processing.processing_dual_encoder import DualEncoderProcessor
from .views import PLAIN, Views

WINDOW = 1024  # texts that are sorted by length together: the file is written in their own order


class TowerCache:
    """Hidden states of many items in one memory-mapped float16 file; item i is a tensor (its tokens, C)."""

    def __init__(self, path: Path, views: int = 1):
        self.path, self.views = Path(path), views
        try:
            self.starts = np.array(read_array(self.path / "starts.npy", "integer", 1))
            self.width = int(json.loads((self.path / "cache.json").read_text(encoding="utf-8"))["width"])
            if len(self.starts) < 1 or self.starts[0] != 0 or (np.diff(self.starts) < 0).any() or self.width < 1:
                raise ValueError("its numbers are not those of a cache")
            shape = int(self.starts[-1]), self.width
            size = (self.path / "states.f16").stat().st_size
            if size != 2 * shape[0] * shape[1]:
                raise ValueError(f"states.f16 has {size:,} bytes, not {2 * shape[0] * shape[1]:,}")
            self.states = np.memmap(self.path / "states.f16", np.float16, "r", shape=shape)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: a damaged cache ({error}); remove it, and it is made again") from None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.states[self.starts[index] : self.starts[index + 1]]))


@dataclass
class Caches:
    """The caches of one split; None where a tower is not cached."""

    vision: TowerCache | None = None  # the tower's tokens, or what enters its first trained block
    below: bool = False  # whether `vision` holds what enters the first trained block
    text: TowerCache | None = None
    scene: TowerCache | None = None  # one vector per image and view, of PIR's prior

    @property
    def vision_input(self) -> str:
        """The argument of the model that takes what `vision` holds; see `VisionTail`."""
        return "pixel_values" if self.below else "vision_hidden_states"


class CachedRowInputs(RowInputs):
    """`RowInputs` of rows whose frozen towers are cached; of several views of an image, the first, which is plain."""

    def __init__(self, processor: DualEncoderProcessor, rows: Dataset, caches: Caches):
        super().__init__(processor, rows)
        self.caches = caches

    def readable(self, indices: Sequence[int]) -> list[bool]:
        """Whether the picture of each of these rows can be read; training meets pictures one by one, and not all."""
        return [self.caches.vision is not None or not picture_problem(self.rows[index]) for index in indices]

    def images(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """The cached image tokens of these rows, or their pictures where there is no cache."""
        if self.caches.vision is None:
            return super().images(indices)
        places = [index * self.caches.vision.views for index in indices]
        inputs = {self.caches.vision_input: torch.stack([self.caches.vision[place].float() for place in places])}
        if self.caches.scene is not None:
            inputs["scene_states"] = torch.stack([self.caches.scene[place][0].float() for place in places])
        return inputs

    def texts(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """The cached text tokens of these captions, padded, or their token ids where there is no cache."""
        if self.caches.text is None:
            return super().texts(indices)
        return pad_states([self.caches.text[index] for index in indices])


def cache_images(
    model: DualEncoderPreTrainedModel,
    tower: nn.Module,
    encode: Callable[[torch.Tensor], torch.Tensor],
    processor: DualEncoderProcessor,
    rows: Dataset,
    folder: str | Path,
    views: Views = PLAIN,
    facts: Sequence = (),
    batch_size: int = 32,
) -> TowerCache:
    """Cache a frozen backbone over the pictures of `rows`.

    Args:
        model: its device is used.
        tower: the backbone, for the digest.
        encode: pixel values (B, 3, S, S) to states (B, N, C).
        processor, rows: as for training.
        folder: of the caches.
        views: one item per image and view; all backbones of a model see the same views.
        facts: what else `encode` depends on, for the digest.
        batch_size: images at a time.
    """
    pictures = processor.image_processor
    size = pictures.size["height"]
    seen = [size, views.count, json.dumps(pictures.to_dict(), sort_keys=True, default=str)]
    if views.count > 1:
        seen += [str(views), *rows["image_id"]]
    pictures_of = pictures_digest(map(image_source, rows["image"]))
    path = Path(folder) / f"vision-{tower_digest(tower, pictures_of, seen, list(facts))}"

    def prepare(batch: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        images = [views.open(rows[row], view, size) for row, view in batch]
        return {"pixel_values": pictures(images, return_tensors="pt")["pixel_values"]}

    def run(inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
        return list(encode(inputs["pixel_values"]).half().cpu().numpy())

    tower.eval()
    batches = batches_of([(row, view) for row in range(len(rows)) for view in range(views.count)], batch_size)
    states = (states for _, states in run_batches(batches, prepare, run, model.device, decoding_threads()))
    _fill(path, states, len(batches), "caching image tokens")
    return TowerCache(path, views.count)


def cache_text(
    model: DualEncoderPreTrainedModel,
    processor: DualEncoderProcessor,
    texts: list[str],
    folder: str | Path,
    batch_size: int = 128,
) -> TowerCache:
    """Cache the text tower over `texts`, which are cut as the processor cuts them."""
    tokenizer = processor.tokenizer
    parts = (tokenizer(list(part), truncation=True)["input_ids"] for part in batches_of(texts, WINDOW))
    path = Path(folder) / f"text-{tower_digest(model.text_model, tokenizer.padding_side, *parts)}"

    def prepare(batch: Sequence[int]) -> dict[str, torch.Tensor]:
        return tokenize(tokenizer, [texts[index] for index in batch])

    def run(inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
        mask = inputs["attention_mask"]
        _, hidden = run_text_tower(model.text_model, inputs["input_ids"], mask)
        return [state[keep].half().cpu().numpy() for state, keep in zip(hidden, mask.bool())]

    def in_order(window: Sequence[int]) -> list[np.ndarray]:
        """The states of a window's texts, in the order of the file."""
        batches = batches_of(by_length(texts, window), batch_size)
        states = {}
        for batch, part in run_batches(batches, prepare, run, model.device):
            states |= dict(zip(batch, part))
        return [states[index] for index in window]

    model.text_model.eval()
    windows = batches_of(range(len(texts)), WINDOW)
    _fill(path, (in_order(window) for window in windows), len(windows), "caching text tokens")
    return TowerCache(path)


def _fill(path: Path, batches: Iterable[list[np.ndarray]], count: int, title: str):
    """Write all batches, completely or not at all; one of several processes does it, and the others wait."""
    if path.exists():
        return
    with one_writer(f"{path}.lock", str(path), wait=-1):
        if not path.exists():
            with whole_folder(path) as draft:
                _write(draft, batches, count, title)


def _write(folder: Path, batches: Iterable[list[np.ndarray]], count: int, title: str):
    lengths, width = [], 0
    with (folder / "states.f16").open("wb") as file:
        for states in tqdm(batches, total=count, desc=title):
            for state in states:
                lengths.append(len(state))
                width = state.shape[1]
                file.write(np.ascontiguousarray(state).tobytes())
    np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    (folder / "cache.json").write_text(json.dumps({"width": width}))

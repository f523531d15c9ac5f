"""Measure a tower by running it on a few made-up inputs, before any data are read.

A configuration does not tell reliably how wide a tower's output is, how many positions it can use, whether padding
reaches its tokens, or whether it draws random numbers while it evaluates. One dry forward pass does.

Shapes: B images, T texts, N image tokens, L text tokens, C tower channels.
"""

from dataclasses import dataclass

import torch
from torch import nn

from .towers import as_tokens, run_vision_tower

TOLERANCE = 1e-3  # of the largest value; batch composition alone moves float32 by about 1e-6


@dataclass(frozen=True)
class VisionProbe:
    """What a vision tower gives for a square picture.

    Args:
        tokens: N.
        width: C.
        prefix: tokens before the patches (class, distillation, registers), if the others fill a square.
        unused: names of parameters that the tokens do not depend on.
    """

    tokens: int
    width: int
    prefix: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        return f"vision: {self.tokens} tokens x {self.width}"


@dataclass(frozen=True)
class TextProbe:
    """What a text tower gives for a caption.

    Args:
        longest: tokens of the longest text that it can read, at most as many as were asked for.
        width: C.
        vocabulary: rows of its word embedding.
        causal: whether a token sees only those before it.
        unused: names of parameters that the tokens do not depend on.
    """

    longest: int
    width: int
    vocabulary: int
    causal: bool
    unused: tuple[str, ...]

    def __str__(self) -> str:
        kind = ", causal" if self.causal else ""
        return f"text: up to {self.longest} tokens x {self.width}, {self.vocabulary} words{kind}"


@torch.no_grad()
def probe_vision(tower: nn.Module, image_size: int, name: str = "vision tower") -> VisionProbe:
    """Run a vision tower on made-up pictures (2, 3, S, S).

    Args:
        tower: a backbone of transformers.
        image_size: S.
        name: of the tower, for errors.

    Raises:
        ValueError: it does not run on such pictures, its output is not tokens or a feature map, is not the same twice
            or depends on the other pictures of a batch, or it ignores the pixels at the right and lower border.
    """
    with _evaluating(tower):
        device = next(tower.parameters()).device
        pixels = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
        tokens = _image_tokens(tower, pixels, name)
        if not _equal(tokens, _image_tokens(tower, pixels, name)):
            raise ValueError(
                f"{name}: this {_kind(tower)} gives another output each time, even in eval mode (it draws random "
                "numbers, as masked autoencoders do), so nothing can be found by it: choose another --vision"
            )
        if not _equal(tokens[:1], _image_tokens(tower, pixels[:1], name)):
            raise ValueError(
                f"{name}: a picture's tokens depend on the other pictures of its batch in this {_kind(tower)}: choose "
                "another --vision"
            )
        _check_border(tower, pixels[:1], tokens[:1], name)
        side = int(tokens.shape[1] ** 0.5)
        unused = _unused(tower, lambda: _image_tokens(tower, pixels, name))
    return VisionProbe(tokens.shape[1], tokens.shape[2], tokens.shape[1] - side * side, unused)


@torch.no_grad()
def probe_text(tower: nn.Module, longest: int, pad_token_id: int = 0, name: str = "text tower") -> TextProbe:
    """Run a text tower on made-up captions (2, L).

    Args:
        tower: a backbone of transformers.
        longest: tokens of the longest text that will be asked of it.
        pad_token_id: what its tokenizer fills short texts with.
        name: of the tower, for errors.

    Raises:
        ValueError: it does not run on token ids and a mask, does not give one state a token, is not the same twice, or
            padding reaches its tokens.
    """
    with _evaluating(tower):
        vocabulary = _vocabulary(tower, name)
        device = next(tower.parameters()).device
        length = min(9, longest)
        # The upper half of the vocabulary: special tokens, above all padding, lie among the first.
        ids = torch.randint(vocabulary // 2, vocabulary, (2, length), generator=torch.Generator().manual_seed(0))
        ids, mask = ids.to(device), torch.ones(2, length, dtype=torch.long, device=device)
        states = _text_states(tower, ids, mask, name)
        if not _equal(states, _text_states(tower, ids, mask, name)):
            raise ValueError(f"{name}: this {_kind(tower)} gives another output each time, even in eval mode")
        if not _equal(states[:1], _text_states(tower, ids[:1], mask[:1], name)):
            raise ValueError(f"{name}: a text's tokens depend on the other texts of its batch in this {_kind(tower)}")
        short = max(1, length // 2)
        mask[0, short:] = 0
        padded = _text_states(tower, ids.masked_fill(mask == 0, pad_token_id), mask, name)[:1, :short]
        alone = _text_states(tower, ids[:1, :short], mask[:1, :short], name)
        if not _equal(padded, alone):
            raise ValueError(
                f"{name}: padding reaches the tokens of a text in this {_kind(tower)}, so its embedding would depend "
                "on the longest text of a batch: choose another --text"
            )
        changed = ids.clone()
        changed[0, -1] = ids[0, 0]
        mask[0] = 1
        causal = length > 1 and torch.equal(states[0, 0], _text_states(tower, changed, mask, name)[0, 0])
        usable = longest_text(tower, longest, name)
        unused = _unused(tower, lambda: _text_states(tower, ids, mask, name))
    return TextProbe(usable, states.shape[2], vocabulary, causal, unused)


def check_vocabulary(tokenizer, vocabulary: int, name: str = "text tower"):
    """Compare a tokenizer with the rows of the word embedding that it indexes.

    Raises:
        ValueError: the tokenizer gives numbers that the embedding has no row for.
    """
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"{name}: its tokenizer knows {len(tokenizer)} tokens, its word embedding has {vocabulary} rows (tokens "
            f"were added?): resize the tower (resize_token_embeddings({len(tokenizer)})) and save it with its "
            "tokenizer, or take the tokenizer that belongs to it"
        )


def _vocabulary(tower, name) -> int:
    try:
        return tower.get_input_embeddings().weight.shape[0]
    except (NotImplementedError, AttributeError):
        raise ValueError(f"{name}: this {_kind(tower)} has no word embedding: choose another --text") from None


def _image_tokens(tower, pixels, name):
    try:
        hidden = run_vision_tower(tower, pixels).last_hidden_state
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, NotImplementedError) as error:
        raise ValueError(
            f"{name}: this {_kind(tower)} does not run on pictures of {pixels.shape[-1]} x {pixels.shape[-1]} pixels "
            f"({_short(error)}): set --image_size to what it was trained on, or choose another --vision"
        ) from error
    if hidden is None or hidden.dim() not in (3, 4) or len(hidden) != len(pixels):
        raise ValueError(f"{name}: a {_kind(tower)} gives neither tokens (B, N, C) nor a feature map (B, C, H, W)")
    return as_tokens(hidden).float()


def _text_states(tower, ids, mask, name):
    try:
        states = tower(input_ids=ids, attention_mask=mask).last_hidden_state
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, NotImplementedError) as error:
        raise ValueError(
            f"{name}: this {_kind(tower)} does not read token ids and a mask ({_short(error)}): choose another --text"
        ) from error
    if states.shape[:2] != ids.shape:
        raise ValueError(
            f"{name}: this {_kind(tower)} gives {tuple(states.shape)} for {tuple(ids.shape)} tokens, not one state a "
            "token: choose another --text"
        )
    return states.float()


def _check_border(tower, pixels, tokens, name):
    """Refuse a size whose remainder after whole patches is dropped: what lies there would never be seen."""
    size = pixels.shape[-1]
    border, centre = pixels.clone(), pixels.clone()
    border[..., -1, :] += 30.0  # much, because an untrained tower hardly answers to a single pixel
    border[..., :, -1] += 30.0
    centre[..., size // 2, :] += 30.0  # a tower that does not answer to this either is untrained: nothing is known
    seen = [not _equal(tokens, _image_tokens(tower, changed, name), tolerance=0.0) for changed in (border, centre)]
    if seen == [False, True]:
        patch = getattr(tower.config, "patch_size", None)
        patch = patch if isinstance(patch, int) and 0 < patch <= size else None
        sizes = f"{size // patch * patch} or {-(-size // patch) * patch}" if patch else "a multiple of its patches"
        raise ValueError(
            f"{name}: with --image_size {size} this {_kind(tower)} drops the pixels at the right and lower border; "
            f"set it to {sizes}"
        )


@torch.no_grad()
def longest_text(tower: nn.Module, longest: int, name: str = "text tower") -> int:
    """Find how many tokens, up to `longest`, a text tower reads: tables may have fewer usable rows than they show."""

    def reads(length: int) -> bool:
        ids = torch.full((1, length), 3, device=next(tower.parameters()).device)
        try:
            _text_states(tower, ids, torch.ones_like(ids), name)
        except ValueError:
            return False
        return True

    stated = getattr(tower.config, "max_position_embeddings", None)
    upper = min(longest, stated) if isinstance(stated, int) and stated > 0 else longest
    for length in (upper, upper - 1, upper - 2):  # RoBERTa and its kin keep two rows for themselves
        if length >= 1 and reads(length):
            return length
    low, high = min(9, upper), upper - 2  # reads(low) is known, reads(high) fails
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reads(middle) else (low, middle)
    return low


def _unused(tower, run) -> tuple[str, ...]:
    """Names of trainable parameters without a gradient from the output: an error under DDP.

    Both modes are asked, since LeViT keeps what it computed of a parameter while it evaluates. Experts that a mixture
    did not choose this time are no such parameters, so that mixtures are not asked.
    """
    named = {name: parameter for name, parameter in tower.named_parameters() if parameter.requires_grad}
    if not named or any("expert" in name for name in named):
        return ()
    buffers = {name: buffer.clone() for name, buffer in tower.named_buffers()}  # statistics move in train mode
    without = []
    try:
        for mode in (False, True):
            tower.train(mode)
            with torch.random.fork_rng(), torch.enable_grad():  # dropout must not move the numbers that training draws
                gradients = torch.autograd.grad(run().sum(), list(named.values()), allow_unused=True)
            without.append({name for name, gradient in zip(named, gradients) if gradient is None})
    finally:
        tower.eval()
        for name, buffer in tower.named_buffers():
            buffer.copy_(buffers[name])
    return tuple(name for name in named if all(name in names for names in without))


class _evaluating:  # noqa: N801  (a context manager)
    """Put a module in eval mode for a while."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __enter__(self):
        self.modes = {module: module.training for module in self.module.modules()}
        self.module.eval()

    def __exit__(self, *error):
        for module, mode in self.modes.items():
            module.training = mode


def _equal(a: torch.Tensor, b: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * a.abs().max())


def _kind(tower) -> str:
    return f"{tower.config.model_type} tower"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."


__all__ = ["TextProbe", "VisionProbe", "check_vocabulary", "longest_text", "probe_text", "probe_vision"]

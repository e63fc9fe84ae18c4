"""SAM of any size, built from what its state dict tells: the official three, and a tiny one for tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

Table = dict[str, torch.Tensor]
ENCODER = "image_encoder."


@dataclass(frozen=True)
class Shape:
    """Sizes of a SAM (see `shape_of`)."""

    side: int = 1024
    width: int = 768
    depth: int = 12
    heads: int = 12
    window: int = 14
    whole: tuple[int, ...] = (2, 5, 8, 11)
    channels: int = 256
    layers: int = 2
    hidden: int = 2048
    masks: int = 3
    mask_channels: int = 16


TINY = Shape(
    side=128, width=32, depth=2, heads=2, window=5, whole=(1,), channels=32, hidden=32, masks=3, mask_channels=4
)
"""A twin of the architecture that runs in milliseconds."""


def _count(state: Table, start: str) -> int:
    found = {key[len(start) :].split(".")[0] for key in state if key.startswith(start)}
    return len(found)


def shape_of(state: Table) -> Shape:
    """Read the sizes of a full SAM from its tensors.

    Parameters
    ----------
    state : dict of str to tensor
        With the keys of the segment-anything package.

    Raises
    ------
    KeyError
        If a tensor that tells a size is missing.
    """
    embed = state[f"{ENCODER}pos_embed"]  # (1, side / 16, side / 16, width)
    tokens, width = int(embed.shape[1]), int(embed.shape[3])
    depth = _count(state, f"{ENCODER}blocks.")
    relative = [state[f"{ENCODER}blocks.{n}.attn.rel_pos_h"] for n in range(depth)]
    whole = tuple(n for n, table in enumerate(relative) if table.shape[0] == 2 * tokens - 1)
    windows = [(int(table.shape[0]) + 1) // 2 for n, table in enumerate(relative) if n not in whole]
    return Shape(
        side=tokens * 16,
        width=width,
        depth=depth,
        heads=width // int(relative[0].shape[1]),
        window=windows[0] if windows else 0,
        whole=whole,
        channels=int(state[f"{ENCODER}neck.0.weight"].shape[0]),
        layers=_count(state, "mask_decoder.transformer.layers."),
        hidden=int(state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0]),
        masks=int(state["mask_decoder.mask_tokens.weight"].shape[0]) - 1,
        mask_channels=int(state["prompt_encoder.mask_downscaling.3.weight"].shape[0]),
    )


def build(shape: Shape) -> Any:
    """Return an untrained SAM of these sizes."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    tokens = shape.side // 16
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=shape.side,
            patch_size=16,
            embed_dim=shape.width,
            depth=shape.depth,
            num_heads=shape.heads,
            mlp_ratio=4,
            out_chans=shape.channels,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=shape.window,
            global_attn_indexes=shape.whole,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=shape.channels,
            image_embedding_size=(tokens, tokens),
            input_image_size=(shape.side, shape.side),
            mask_in_chans=shape.mask_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=shape.masks,
            transformer=TwoWayTransformer(
                depth=shape.layers, embedding_dim=shape.channels, mlp_dim=shape.hidden, num_heads=8
            ),
            transformer_dim=shape.channels,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()


def tiny(seed: int = 0) -> Any:
    """Return the tiny twin with random weights, the same for the same seed."""
    return random_weights(TINY, seed)


def random_weights(shape: Shape, seed: int = 0) -> Any:
    """Return a SAM of any size with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(shape)
        for value in net.parameters():  # tables that training would fill start at zero
            if float(value.detach().abs().max()) == 0 and value.dim() > 1:
                nn.init.normal_(value, std=0.1)
    return net


def with_encoder(state: Table, encoder: Table) -> Table:
    """Lay an encoder-only table without position embedding (LVM-Med's form) over a full SAM.

    Raises
    ------
    ValueError
        If the encoder's tensors are not exactly SAM's own but for the position embedding.
    """
    plain = {key.removeprefix(ENCODER): value for key, value in encoder.items()}
    own = {key[len(ENCODER) :]: value for key, value in state.items() if key.startswith(ENCODER)}
    expected = set(own) - {"pos_embed"}
    if set(plain) != expected or any(plain[key].shape != own[key].shape for key in expected):
        raise ValueError("the encoder's tensors are not those of the SAM it is laid over")
    return {key: value for key, value in state.items() if key != f"{ENCODER}pos_embed"} | {
        ENCODER + key: value for key, value in plain.items()
    }

"""SAM 2 that follows an object through a volume: built by the transformers package, fed with slices as they are asked for.

The package's own way in reads a film. Here the "film" is a mapping from slice number to picture, so that nothing
is compressed, nothing is read before it is needed, and a slice seen before is not encoded again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the photographs SAM 2 was trained on, 0 to 1."""
KINDS = ("sam2_video", "sam2")
"""What the ``config.json`` of such a folder calls itself."""


class Pictures(Mapping[int, torch.Tensor]):
    """Slices by number, each made when it is asked for: (3, side, side) float32.

    Parameters
    ----------
    picture : callable
        ``picture(number)`` returns (rows, columns, 3) uint8.
    count : int
    side : int
        Of the square the network sees; the longest side of a picture fills it, the rest is black, so that pixels
        stay square.
    """

    def __init__(self, picture: Callable[[int], NDArray[np.uint8]], count: int, side: int) -> None:
        self._picture, self._count, self._side = picture, count, side

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._count))

    def __getitem__(self, number: int) -> torch.Tensor:
        if not 0 <= number < self._count:
            raise KeyError(number)
        image = torch.from_numpy(self._picture(number)).permute(2, 0, 1)[None].float() / 255
        rows, columns = inner(tuple(image.shape[2:]), self._side)
        shrinks = max(image.shape[2:]) > self._side
        image = F.interpolate(image, (rows, columns), mode="bilinear", align_corners=False, antialias=shrinks)
        image = (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
        return F.pad(image, (0, self._side - columns, 0, self._side - rows))[0]


def inner(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the rows and columns that a picture of a size takes in the network's square."""
    longest = max(size)
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))


class Features:
    """What the encoder made of slices, in half precision: takes the place of the package's cache of one frame.

    Parameters
    ----------
    device : str
    limit_mb : float
        Least recently used goes first.
    """

    def __init__(self, device: str, limit_mb: float) -> None:
        self._device, self._limit = device, limit_mb * 1e6
        self._held: OrderedDict[Any, tuple[dict[str, list[torch.Tensor]], int]] = OrderedDict()
        self._bytes = 0
        self.place: Any = None
        """Slices of another plane are other pictures of the same number."""
        self.encoded = 0
        """How often the encoder ran."""

    def cache_vision_features(self, frame_idx: int, features: dict[str, Any]) -> None:
        """Keep what the encoder made (called by the network)."""
        self.encoded += 1
        half = {name: [v.to("cpu", torch.float16) for v in values] for name, values in features.items()}
        size = sum(v.numel() * 2 for values in half.values() for v in values)
        self._held[self.place, frame_idx] = (half, size)
        self._bytes += size
        while self._bytes > self._limit and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1][1]

    def get_vision_features(self, frame_idx: int) -> dict[str, Any] | None:
        """Return what was kept, or None (called by the network)."""
        key = (self.place, frame_idx)
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        half = self._held[key][0]
        return {name: [v.to(self._device, torch.float32) for v in values] for name, values in half.items()}

    def clear_all(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self._bytes = 0


@dataclass(frozen=True, eq=False)
class Told:
    """What is told about one slice: points (N, 2) x y and signs (N,), a box (4,), or a whole mask (rows, columns)."""

    points: NDArray[Any]
    positive: NDArray[np.bool_]
    box: NDArray[Any] | None = None
    mask: NDArray[np.bool_] | None = None


class Following:
    """One object followed through one stack of pictures.

    Parameters
    ----------
    net : Sam2VideoModel
    pictures : Pictures
    size : (rows, columns) of a picture
    features : Features
    device : str
    """

    def __init__(self, net: Any, pictures: Pictures, size: tuple[int, int], features: Features, device: str) -> None:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        self.net, self.size, self.device = net, size, device
        self.side = int(net.image_size)
        self.state = Sam2VideoInferenceSession(
            video_height=size[0], video_width=size[1], inference_device=device, inference_state_device=device,
            dtype=torch.float32,
        )
        self.state.processed_frames = pictures
        self.state.cache = features
        self.state.obj_id_to_idx(1)

    def tell(self, number: int, told: Told, *, passing: bool = False) -> tuple[NDArray[np.bool_], float]:
        """Return the mask (rows, columns) of a slice something is told about, and how sure the object is there.

        Parameters
        ----------
        number : int
        told : Told
        passing : bool
            Whether the object is being followed past this slice: then what was seen before counts, too.
        """
        if told.mask is not None:
            self.state.add_mask_inputs(0, number, self._square(told.mask))
        else:
            scale = self.side / max(self.size)
            places, signs = [told.points.reshape(-1, 2)], [told.positive.astype(np.int64)]
            if told.box is not None:  # two corners with signs of their own, before the points
                places.insert(0, told.box.reshape(2, 2))
                signs.insert(0, np.array([2, 3]))
            coords = torch.from_numpy((np.concatenate(places) * scale).astype(np.float32))[None, None]
            labels = torch.from_numpy(np.concatenate(signs).astype(np.int32))[None, None]
            self.state.add_point_inputs(0, number, {"point_coords": coords, "point_labels": labels})
        if passing:
            self.state.frames_tracked_per_obj[0][number] = {"reverse": False}
        self.state.obj_with_new_inputs = [1]
        return self.follow(number)

    def follow(self, number: int, *, back: bool = False) -> tuple[NDArray[np.bool_], float]:
        """Return the mask (rows, columns) of a slice from what was seen so far, and how sure the object is there."""
        found = self.net(self.state, frame_idx=number, reverse=back)
        logits = F.interpolate(found.pred_masks.float(), (self.side, self.side), mode="bilinear", align_corners=False)
        rows, columns = inner(self.size, self.side)
        whole = F.interpolate(logits[..., :rows, :columns], self.size, mode="bilinear", align_corners=False)
        sure = float(torch.sigmoid(found.object_score_logits.float().reshape(-1)[0]))
        return (whole[0, 0] > 0).cpu().numpy(), sure

    def _square(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        rows, columns = inner(self.size, self.side)
        image = torch.from_numpy(mask.astype(np.float32))[None, None]
        image = F.interpolate(image, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
        return (F.pad(image, (0, self.side - columns, 0, self.side - rows)) >= 0.5).float()


def loaded(folder: Path, device: str) -> Any:
    """Return the network of a folder with ``config.json`` and ``model.safetensors``, ready to answer.

    Raises
    ------
    ValueError
        If the folder holds something else, or its tensors do not fit.
    """
    import json

    from transformers import Sam2VideoConfig, Sam2VideoModel
    from transformers.utils import logging

    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind not in KINDS:
        raise ValueError(f"its config.json describes a {kind!r}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = Sam2VideoConfig.from_pretrained(folder, local_files_only=True)
    net, told = Sam2VideoModel.from_pretrained(
        folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
    )
    # A tensor that is missing would be filled with random numbers without a word.
    wrong = [*told["missing_keys"], *told["mismatched_keys"]]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are missing or of another size, such as {wrong[0]}")
    # One click gives the first mask: on medical images it does better than the one SAM 2 rates highest.
    net.config.multimask_max_pt_num = 0
    return net.to(device).eval().requires_grad_(False)


def tiny(seed: int = 0) -> Any:
    """Return a small SAM 2 with random weights, the same for the same seed."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads": 1,
        "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }  # fmt: skip
    vision = {
        "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 128,
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config=vision, image_size=128,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        memory_attention_hidden_size=128, memory_attention_feed_forward_hidden_size=32, memory_attention_num_layers=1,
        memory_attention_rope_feat_sizes=[8, 8], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Sam2VideoModel(config).eval()
        for value in net.parameters():
            if value.dim() > 1:
                torch.nn.init.normal_(value, std=0.1)
        with torch.no_grad():  # random numbers would as often as not say that there is no object
            net.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(4.0)
    return net

"""One slice at a time: encode a picture once, then ask for masks; for each preprocessing profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.models._sam_asked import Asked
from napari_mri.models._sam_files import Opened


@dataclass(frozen=True, eq=False)
class Found:
    """SAM's answer on one slice: mask (rows, columns), its own guess of the IoU, and the coarse logits."""

    mask: NDArray[np.bool_]
    score: float
    logits: NDArray[np.float32]


class Predictor:
    """A SAM with its profile.

    Parameters
    ----------
    sam : Opened
    device : str
    """

    def __init__(self, sam: Opened, device: str) -> None:
        self.sam, self.device = sam, device
        self.side = int(sam.net.image_encoder.img_size)

    def encode(self, picture: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Return the embedding (C, T, T) of a picture (rows, columns, 3)."""
        import torch

        with torch.inference_mode():
            prepared = self._prepared(picture).to(self.device)
            return np.asarray(self.sam.net.image_encoder(prepared)[0].cpu().numpy(), dtype=np.float16)

    def _prepared(self, picture: NDArray[np.uint8]) -> Any:
        import torch
        from torch.nn import functional as F

        if self.sam.profile == "medsam":
            image = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
            square = F.interpolate(image, (self.side, self.side), mode="bicubic", align_corners=False, antialias=True)
            low, high = square.min(), square.max()
            return (square - low) / (high - low).clamp(min=1e-8)
        from segment_anything.utils.transforms import ResizeLongestSide

        array = ResizeLongestSide(self.side).apply_image(picture)
        return self.sam.net.preprocess(torch.from_numpy(array).permute(2, 0, 1)[None].float().to(self.device))

    def _sizes(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns that a picture of this size takes in the net's square."""
        if self.sam.profile == "medsam":
            return self.side, self.side
        from segment_anything.utils.transforms import ResizeLongestSide

        rows, columns = ResizeLongestSide.get_preprocess_shape(*size, self.side)
        return int(rows), int(columns)

    def ask(self, embedding: NDArray[np.float16], size: tuple[int, int], asked: Asked) -> Found:
        """Return the first mask for points, box and earlier logits.

        Parameters
        ----------
        embedding : ndarray, (C, T, T)
        size : (rows, columns) of the picture
        asked : Asked
        """
        import torch

        net = self.sam.net
        inner = self._sizes(size)
        scale = np.array([inner[1] / size[1], inner[0] / size[0]])
        with torch.inference_mode():
            features = torch.from_numpy(embedding).float()[None].to(self.device)
            points = None
            if len(asked.points):
                places = torch.from_numpy((asked.points * scale).astype(np.float32))[None].to(self.device)
                signs = torch.from_numpy(asked.positive.astype(np.int64))[None].to(self.device)
                points = (places, signs)
            box = None
            if asked.box is not None:
                box = torch.from_numpy((asked.box.reshape(2, 2) * scale).reshape(1, 4).astype(np.float32))
                box = box.to(self.device)
            before = None if asked.before is None else torch.from_numpy(asked.before)[None].to(self.device)
            sparse, dense = net.prompt_encoder(points=points, boxes=box, masks=before)
            low, score = net.mask_decoder(
                image_embeddings=features,
                image_pe=net.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                # The first mask: more masks, and choosing by SAM's own score, do worse on medical images.
                multimask_output=False,
            )
            mask = net.postprocess_masks(low, inner, size)[0, 0] > net.mask_threshold
        return Found(mask.cpu().numpy(), float(score[0, 0]), np.asarray(low[0].cpu().numpy(), dtype=np.float32))

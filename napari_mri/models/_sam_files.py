"""Which SAM a file holds, and how its pictures must be prepared: recognised, or refused, never guessed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_mri.core.errors import WeightsProblem
from napari_mri.engine import weights as files

OFFICIAL = {"01ec64": "ViT-B", "0b3195": "ViT-L", "4b8939": "ViT-H"}
"""First digits of the md5 of the official checkpoints, as their file names tell them."""
PROFILES = ("auto", "sam", "medsam", "lvm-med")


@dataclass(frozen=True)
class Opened:
    """A SAM ready to work.

    Parameters
    ----------
    net : torch module of the segment-anything package
    profile : str
        ``"sam"``: longest side to the net's, padded, mean and deviation of photographs.
        ``"medsam"``: stretched to a square, 0 to 1, no mean or deviation.
        ``"lvm-med"``: as ``"sam"``, no position embedding.
    sha256 : str
        Of the files together.
    """

    net: Any
    profile: str
    sha256: str


def opened(path: Path, encoder: Path | None, profile: str, device: str) -> Opened:
    """Load a SAM from a full checkpoint, and an encoder laid over it.

    Parameters
    ----------
    path : pathlib.Path
        A full SAM or MedSAM state dict.
    encoder : pathlib.Path, optional
        An encoder-only state dict without position embedding (LVM-Med).
    profile : str
        One of `PROFILES`.
    device : str

    Raises
    ------
    WeightsProblem
        If a file is no SAM, or the profile asked for cannot be that of the files, or cannot be told.
    """
    from napari_mri.nets import sam as nets

    state = _stripped(files.load(path))
    kind = _kind(state)
    if kind == "encoder":
        raise WeightsProblem(
            f"{path.name} holds an image encoder only.",
            hint="Give it as the encoder, beside a full SAM ViT-B as the checkpoint.",
        )
    if kind != "full":
        raise WeightsProblem(
            f"{path.name} holds no SAM of the segment-anything package.", hint="Give its .pth file, or fetch sam-b."
        )
    sha = files.sha256_of(path)
    try:
        shape = nets.shape_of(state)
        if encoder is None:
            profile = _told(path, profile)
        else:
            if profile not in ("auto", "lvm-med"):
                raise WeightsProblem(f"An encoder without position embedding is no {profile}.", hint="Use lvm-med.")
            profile = "lvm-med"
            laid = _stripped(files.load(encoder))
            state = nets.with_encoder(state, laid)
            sha = hashlib.sha256((sha + files.sha256_of(encoder)).encode()).hexdigest()
        net = nets.build(shape)
        if profile == "lvm-med":
            net.image_encoder.pos_embed = None
        net.load_state_dict(state, strict=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsProblem(f"{path.name} does not fit SAM's architecture: {error}.") from None
    return Opened(net.to(device).eval().requires_grad_(False), profile, sha)


def _stripped(state: dict[str, Any]) -> dict[str, Any]:
    """Take the tensors out of the wrappings that trainers put around them."""
    for name in ("model", "state_dict"):
        if isinstance(state.get(name), dict):
            state = state[name]
    return {key.removeprefix("module."): value for key, value in state.items() if hasattr(value, "shape")}


def _kind(state: dict[str, Any]) -> str:
    full = all(any(key.startswith(part) for key in state) for part in ("image_encoder.", "mask_decoder."))
    if full:
        return "full" if "image_encoder.pos_embed" in state else "?"
    bare = {key.removeprefix("image_encoder.") for key in state}
    return "encoder" if any(key.startswith("blocks.0.attn.rel_pos") for key in bare) else "?"


def _told(path: Path, profile: str) -> str:
    """Return the profile of a full checkpoint.

    SAM and MedSAM have the same tensors by name and size, so only SAM's own files are known by themselves.
    """
    if profile == "lvm-med":
        raise WeightsProblem(f"{path.name} has a position embedding, so it is no LVM-Med encoder.")
    stat = path.stat()
    official = _official(str(path), stat.st_mtime_ns, stat.st_size)
    if official and profile == "medsam":
        raise WeightsProblem(f"{path.name} is the official SAM {official}, not MedSAM.", hint="Use the profile sam.")
    if not official and profile == "auto":
        raise WeightsProblem(
            f"{path.name} is no official SAM file, and SAM and MedSAM cannot be told apart by their tensors.",
            hint="Say which it is: profile sam or medsam.",
        )
    return "sam" if official else profile


@lru_cache(maxsize=8)
def _official(path: str, mtime: int, size: int) -> str:
    if size < 300_000_000:
        return ""
    md5 = hashlib.md5(usedforsecurity=False)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 22):
            md5.update(block)
    return OFFICIAL.get(md5.hexdigest()[:6], "")

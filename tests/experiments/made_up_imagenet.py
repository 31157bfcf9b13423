"""Photographs in the archives of ImageNet's format: three classes of the 1,000."""

import io
import tarfile

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n02123394", "n03259280")
TRAIN, VALIDATION = 4, 6  # images of a class, images
SIZES = [(300, 400), (500, 333), (120, 90), (260, 700)]  # height and width


def photograph(height: int, width: int, seed: int) -> Image.Image:
    """A smooth image, which JPEG compression preserves."""
    rows, columns = np.mgrid[:height, :width] / 40
    phases = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    waves = [np.sin(rows + a) * np.cos(columns + b) for a, b in phases]
    return Image.fromarray((127.5 + 120 * np.stack(waves, -1)).astype(np.uint8))


def jpeg(height: int, width: int, seed: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    photograph(height, width, seed).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def train_files() -> dict[str, dict[str, bytes]]:
    """Training photographs by class and file name; the last image of a class is grey."""
    return {
        wnid: {
            f"{wnid}_{i}.JPEG": jpeg(*SIZES[i], seed=10 * c + i, mode="L" if i == TRAIN - 1 else "RGB")
            for i in range(TRAIN)
        }
        for c, wnid in enumerate(WNIDS)
    }


def validation_files() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(300, 250 + i, seed=100 + i) for i in range(VALIDATION)}


def centre(content: bytes) -> np.ndarray:
    """The usual resized centre crop for evaluation, computed by Pillow."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image = image.resize([256 * side // min(image.size) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def close(one: np.ndarray, other: np.ndarray, levels: float) -> bool:
    """Whether no pixel differs by more."""
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= levels)

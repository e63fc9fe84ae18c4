"""Lets atheris look for inputs that reach new code: ``python -m fuzz.coverage -max_total_time=600``.

Needs ``pip install atheris`` (Linux and macOS). Arguments are libFuzzer's; the seeds are written to
the folder ``fuzz/corpus`` first.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

CORPUS = Path("fuzz/corpus")


def main() -> None:
    """Write the seeds, then hand over to atheris; it ends the process."""
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["napari_mri.io"]):
        from fuzz.worker import outcome
        from napari_mri.io import formats

        for module in formats.MODULES:
            __import__(f"napari_mri.io.{module}")
    from fuzz.seeds import made, real  # only now: what was imported before would not be watched

    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, content in {**made(), **real()}.items():
        if len(content) < 60_000:
            (CORPUS / name).write_bytes(content)
    folder = TemporaryDirectory(prefix="napari_mri_fuzz_")
    place = Path(folder.name) / "input.bin"

    def once(data: bytes) -> None:
        place.write_bytes(data)
        word, details = outcome(place)
        if word == "error":
            raise RuntimeError(details)

    atheris.Setup([sys.argv[0], *sys.argv[1:], str(CORPUS)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

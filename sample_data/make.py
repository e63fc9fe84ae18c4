"""Write the sample scans of this folder again: ``python sample_data/make.py [FOLDER]``."""

import sys
from pathlib import Path

from napari_mri import sample

place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
place.mkdir(parents=True, exist_ok=True)
sample.write(place)
files = sorted(p for p in place.rglob("*") if p.suffix in (".dcm", ".gz"))
print(f"{len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.2f} MB in {place}")

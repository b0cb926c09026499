"""Take the documentation's pictures from a finished run: python docs/pictures.py results/SAMPLE (`make pictures`)."""

import sys
from pathlib import Path

from PIL import Image

SHOWN = {"overlays": "demo", "views": "report_views", "trust": "report_trust", "curves": "report_curves"}

if __name__ == "__main__":
    pictures = Path(__file__).with_name("pictures")
    for figure, picture in SHOWN.items():
        with Image.open(Path(sys.argv[1], "figures", f"{figure}.png")) as image:
            image.convert("RGB").save(pictures / f"{picture}.jpg", quality=80, optimize=True)

"""What made the files napari_*.tif: labels of 1, 3 and 4 regions of 20 × 30 pixels, saved by napari's own writer."""

import napari
import numpy as np
from napari.layers import Labels
from napari.plugins import _initialize_plugins

_initialize_plugins()
for kind in ("uint8", "int32"):
    for count in (1, 3, 4):
        painted = np.zeros((count, 20, 30), kind)
        for i, page in enumerate(painted, start=1):
            page[3:7, 2:7] = 1
            page[8:14, 10 + i : 13 + i] = 2
        name = f"napari_{napari.__version__}_{kind}_{count}.tif"
        print(Labels(painted[0] if count == 1 else painted, name="Labels").save(name))

"""What ome-zarr-py and ome-zarr-models find in an OME-Zarr image-label; in an environment of their own.

usage: python read_ome_zarr.py LABELS.ome.zarr LEVEL.npy    writes the second level, and prints the rest as JSON
"""

import json
import sys

import numpy as np
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v04.image_label import ImageLabel

path, level = sys.argv[1:]
ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
node = next(iter(Reader(parse_url(path))()))
np.save(level, np.asarray(node.data[1]))
found = {
    "scales": [transforms[0]["scale"] for transforms in node.metadata["coordinateTransformations"]],
    "color": {str(value): np.asarray(color).tolist() for value, color in node.metadata["color"].items()},
    "properties": {str(value): row for value, row in node.metadata["properties"].items()},
}
print(json.dumps(found))

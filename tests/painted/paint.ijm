// What made the files imagej_*.tif, of labels.tif (8 bits, all 0) of a round with 1 and with 3 regions of 20 x 30 pixels:
// java -cp ij.jar ij.ImageJ -batch paint.ijm "LABELS.tif|SAVED.tif|8-bit"     (or 16-bit, 32-bit)
args = split(getArgument(), "|");
open(args[0]);
run(args[2]);
for (i = 1; i <= nSlices; i++) {
	if (nSlices > 1) setSlice(i);
	setColor(1); fillRect(2, 3, 5, 4);
	setColor(2); fillRect(10 + i, 8, 3, 6);
}
saveAs("Tiff", args[1]);

"""Files of images and masks: names, headers, decoding, and splits that are read from them."""

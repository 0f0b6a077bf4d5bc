"""An engine of our own for the features of pyradiomics, on numpy and scipy alone."""

"""One file, one model. A new file here is a new model everywhere."""

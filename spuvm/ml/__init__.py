"""Learning on data of several parties."""

"""Models that judge pictures: a classifier, Fréchet features, CLIP."""

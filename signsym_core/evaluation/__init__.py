"""Running an attack on a model: blocks of images, every epsilon, one outcome for each image."""

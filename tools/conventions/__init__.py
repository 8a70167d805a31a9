"""The conventions of PyTorch, JAX and TensorFlow at kinks: the cases, and the program that measures them."""

"""What holds for every test."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # it is chosen once, at the first import

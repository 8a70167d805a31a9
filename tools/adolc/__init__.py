"""A cross-check against ADOL-C: its abs-normal forms and active gradients of random programs."""

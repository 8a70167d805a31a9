"""The optimisers as classes of torch.optim."""

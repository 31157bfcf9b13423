"""PyTorch's steps beside ours, where the extra `benchmark-peers` is installed: the same networks, data and cores."""

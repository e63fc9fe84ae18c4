"""Where and with what a model runs: device, memory, weights, tiles, there and back."""

"""The methods by name: products of a perturbation, a combiner and a policy, and those that wrap their optimizer."""

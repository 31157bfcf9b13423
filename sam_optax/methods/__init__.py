"""The methods: each a product of a perturbation, a combiner and a policy, with its paper's defaults."""

"""The methods by name: those made of a perturbation, a combiner and a policy, and those that wrap an optimizer."""

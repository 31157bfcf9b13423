"""The methods: those that precede an optimizer, those that wrap one, and those that are complete by themselves."""

"""A run: its config made a program, trained, saved, resumed, and read again when it is finished."""

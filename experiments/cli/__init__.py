"""The command line: errors and exit codes, standard streams, tables, output folders, and the compilation cache."""

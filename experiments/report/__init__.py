"""Reports of runs: the answers of a study, with tables and pictures, as a page and as a document."""

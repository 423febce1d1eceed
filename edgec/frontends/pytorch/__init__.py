"""torch modules, exported programs and their files to graphs."""

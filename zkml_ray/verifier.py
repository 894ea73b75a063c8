"""`python -m zkml_ray.verifier` is the command `verify`, as a program of its own."""

from zkml_ray.command_line.verify import main

if __name__ == "__main__":
    main()

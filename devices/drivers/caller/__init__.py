"""Functions that the program on the other side of standard input and output carries out."""

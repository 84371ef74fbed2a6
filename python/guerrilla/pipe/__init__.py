"""A program that takes mail on its standard input, as Postfix's `pipe(8)` runs it.

`command` makes its arguments, `program` runs it, `exits` says what its exit status means.
"""

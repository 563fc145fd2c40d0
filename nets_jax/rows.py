"""What a row of a table is, for modules that know neither JAX nor each other."""

# A row of a search's or a training's record: its numbers by column.
Row = dict[str, float]
Rows = list[Row]

# The `fitness` column of a genome that is too dense, where that counts first, begins here: in nats, of which
# a network that has learnt anything loses fewer than ten.
INFEASIBLE = 1e3

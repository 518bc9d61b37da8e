"""Console drivers: a recorder per host, and for real machines a line that feeds it (`keeper.keep_console`)."""
